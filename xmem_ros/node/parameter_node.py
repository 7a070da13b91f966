# SPDX-License-Identifier: MIT
"""A lifecycle node whose ROS parameters are the parameter table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.parameter import Parameter

from xmem_ros.errors import ParameterError
from xmem_ros.node.rclpy_workarounds import parameter_overrides
from xmem_ros.outside_text import for_log
from xmem_ros.parameters.rule import CONFIGURE, START, Rule, Value
from xmem_ros.parameters.table import Parameters, changed, rules, value_of, without_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOREIGN = ('use_sim_time', 'start_type_description_service')
_FOREIGN_GROUPS = ('qos_overrides.',)


class ParameterNode(LifecycleNodeMixin, Node):
    """Declares the table, refuses invalid values with the reason, and keeps `parameters` current.

    Unknown parameters are ignored with a warning, as a file for a whole robot has those of other
    nodes; with `strict_parameters` they are refused.

    Attributes:
        parameters: the current values.
        configuring: whether a configuration is in progress.
        configured: whether the node is inactive or active.

    Raises:
        ParameterError: parameters given at the start are not allowed.
    """

    parameters: Parameters

    def __init__(self, name: str, **options: Any) -> None:
        self._declared = False
        self.configuring = self.configured = False
        Node.__init__(self, name, **options)
        # Reentrant, so that the state can be asked for during a transition.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        # Without a value is what a file gives as an empty list.
        ours = {
            key: value
            for key, value in parameter_overrides(self).items()
            if key not in _FOREIGN and not key.startswith(_FOREIGN_GROUPS) and value is not None
        }
        known, warning = without_unknown(ours)
        self.parameters = changed(Parameters(), known)
        for key, (_, rule) in rules().items():
            value = value_of(self.parameters, key)
            self.declare_parameter(key, _as_ros(value), _descriptor(rule, value), ignore_override=True)
        self._declared = True
        if warning:
            self.get_logger().warning(for_log(warning))

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter]) -> SetParametersResult:
        """Set parameters that the table allows.

        The table is checked first, because rclpy's reasons do not name the allowed values.
        """
        if not self._declared:
            return super().set_parameters_atomically(list(parameter_list))
        known = rules()
        ours = {
            item.name: item.value for item in parameter_list if not self.has_parameter(item.name) or item.name in known
        }
        try:
            for name in ours:
                if name in known and ours[name] != _as_ros(value_of(self.parameters, name)):
                    self._check_moment(name, known[name][1])
            parameters = changed(self.parameters, ours)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        exact = [
            Parameter(item.name, value=_as_ros(value_of(parameters, item.name))) if item.name in ours else item
            for item in parameter_list
        ]
        result = super().set_parameters_atomically(exact)
        if result.successful and ours:
            self.parameters = parameters
        return result

    def _check_moment(self, name: str, rule: Rule) -> None:
        if rule.change == START:
            raise ParameterError(f'{name} is read only at the start: start the node with -p {name}:=…')
        if rule.change == CONFIGURE and self.configuring:
            raise ParameterError(
                f'{name} is read when the node is configured, which is going on: wait for its end, then take the '
                'transition cleanup, set it and configure again'
            )
        if rule.change == CONFIGURE and self.configured:
            raise ParameterError(
                f'{name} is read when the node is configured: take the transitions deactivate and cleanup '
                f'(ros2 lifecycle set {self.get_fully_qualified_name()} …), set it, then configure and activate'
            )


def _as_ros(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _descriptor(rule: Rule, value: Value) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=rule.description, read_only=rule.change == START)
    descriptor.dynamic_typing = isinstance(
        value, tuple
    )  # rclpy takes an empty list for BYTE_ARRAY (ros2/rclpy#912, open)
    constraints = [f'{rule.allowed()} {rule.unit}'.strip()] if rule.allowed() else []
    descriptor.additional_constraints = '; '.join([*constraints, f'changes: {rule.change}'])
    if rule.low is None or rule.high is None:
        return descriptor
    if isinstance(value, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(rule.low), to_value=float(rule.high))]
    else:
        descriptor.integer_range = [IntegerRange(from_value=int(rule.low), to_value=int(rule.high), step=1)]
    return descriptor
