# SPDX-License-Identifier: MIT
"""A lifecycle node whose ROS parameters are the table of `parameters.py`, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

from xmem_ros.errors import ParameterError
from xmem_ros.parameters.table import CONFIGURE, START, Parameters, Rule, Value, changed, rules, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOREIGN = ('use_sim_time', 'start_type_description_service')
_FOREIGN_GROUPS = ('qos_overrides.',)


class ParameterNode(LifecycleNode):
    """Declares the table, refuses what it does not allow with the reason, and keeps `parameters` up to date.

    Raises:
        ParameterError: parameters given at the start are unknown or not allowed.
    """

    parameters: Parameters

    def __init__(self, name: str, **options: Any) -> None:
        self._declared = False
        self.configured = False
        super().__init__(name, **options)
        given = {
            key: parameter.value
            for key, parameter in self._parameter_overrides.items()
            if key not in _FOREIGN and not key.startswith(_FOREIGN_GROUPS)
        }
        self.parameters = changed(Parameters(), given)
        for key, (_, rule) in rules().items():
            value = value_of(self.parameters, key)
            self.declare_parameter(key, _as_ros(value), _descriptor(rule, value), ignore_override=True)
        self._declared = True

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter]) -> SetParametersResult:
        """Check against the table first: rclpy's own reasons do not say what is allowed."""
        if not self._declared:
            return super().set_parameters_atomically(list(parameter_list))
        known = rules()
        ours = {
            item.name: item.value for item in parameter_list if not self.has_parameter(item.name) or item.name in known
        }
        try:
            for name in ours:
                if name in known and ours[name] != _as_ros(value_of(self.parameters, name)):
                    self._check_time(name, known[name][1])
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
            self.on_parameters_changed()
        return result

    def on_parameters_changed(self) -> None:
        """Called after parameters have changed."""

    def _check_time(self, name: str, rule: Rule) -> None:
        if rule.change == START:
            raise ParameterError(f'{name} is read only at the start: start the node with -p {name}:=…')
        if rule.change == CONFIGURE and self.configured:
            raise ParameterError(
                f'{name} is read when the node is configured: take it through deactivate and cleanup '
                f'(ros2 lifecycle set {self.get_fully_qualified_name()} …), set it, then configure and activate'
            )


def _as_ros(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _descriptor(rule: Rule, value: Value) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=rule.description, read_only=rule.change == START)
    descriptor.dynamic_typing = isinstance(value, tuple)  # rclpy takes an empty list for one of bytes
    constraints = [f'{rule.allowed()} {rule.unit}'.strip()] if rule.allowed() else []
    descriptor.additional_constraints = '; '.join([*constraints, f'changes: {rule.change}'])
    if rule.low is None or rule.high is None:
        return descriptor
    if isinstance(value, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(rule.low), to_value=float(rule.high))]
    else:
        descriptor.integer_range = [IntegerRange(from_value=int(rule.low), to_value=int(rule.high), step=1)]
    return descriptor
