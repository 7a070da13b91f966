# SPDX-License-Identifier: MIT
"""A lifecycle node whose ROS parameters are the parameter table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

from xmem_ros.errors import ParameterError
from xmem_ros.node.rclpy_workarounds import parameter_overrides
from xmem_ros.parameters.rule import CONFIGURE, START, Rule, Value
from xmem_ros.parameters.table import Parameters, changed, rules, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOREIGN = ('use_sim_time', 'start_type_description_service')
_FOREIGN_GROUPS = ('qos_overrides.',)


class ParameterNode(LifecycleNode):
    """Declares the table, refuses invalid values with the reason, and keeps `parameters` current.

    Raises:
        ParameterError: parameters given at the start are unknown or not allowed.
    """

    parameters: Parameters

    def __init__(self, name: str, **options: Any) -> None:
        self._declared = False
        self.configured = False
        super().__init__(name, **options)
        given = {
            key: value
            for key, value in parameter_overrides(self).items()
            if key not in _FOREIGN and not key.startswith(_FOREIGN_GROUPS)
        }
        self.parameters = changed(Parameters(), given)
        for key, (_, rule) in rules().items():
            value = value_of(self.parameters, key)
            self.declare_parameter(key, _as_ros(value), _descriptor(rule, value), ignore_override=True)
        self._declared = True

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
