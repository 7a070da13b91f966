# SPDX-License-Identifier: MIT
"""Every quality of service that the node asks for or offers, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from xmem_ros.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

BEST_AVAILABLE = getattr(ReliabilityPolicy, 'BEST_AVAILABLE', None)
"""Reliable where every publisher is, else best effort; rclpy has it since Iron."""


def newest_image() -> QoSProfile:
    """For a live camera: the newest image, however it is offered."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=BEST_AVAILABLE or ReliabilityPolicy.BEST_EFFORT
    )


def every_image(depth: int) -> QoSProfile:
    """For a replay: none is to be lost as long as the sender is at most `depth` images ahead."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def beside_images(depth: int) -> QoSProfile:
    """For what comes along with the images, however it is offered."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def output() -> QoSProfile:
    """For what the node says of a frame; subscribers of both kinds match."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)


def accepted_seeds() -> QoSProfile:
    """For seeds, which a recorder that starts later must get too."""
    return latched(100)


def latched(depth: int) -> QoSProfile:
    """The newest messages go to those that subscribe later, too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def diagnostics() -> QoSProfile:
    """As diagnostic_updater has it."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)


def overridable() -> QoSOverridingOptions:
    """History, depth and reliability may be set with parameters `qos_overrides.<topic>.<publisher|subscription>.…`."""
    return QoSOverridingOptions.with_default_policies()


def override(profile: QoSProfile, parameters: Mapping[str, Any], topic: str) -> None:
    """Apply the user's `qos_overrides.<topic>.subscription.…` to a profile.

    rclpy's own overriding options serve a subscription that is made once: they keep what the first one had, also where
    another parameter, here `queue`, asks for something else when it is made again.

    Args:
        profile: is changed.
        parameters: name → value, as the user gave them.
        topic: fully resolved.

    Raises:
        ParameterError: a policy that is unknown, or a value that it does not have.
    """
    prefix = f'qos_overrides.{topic}.subscription.'
    for name, value in parameters.items():
        if not name.startswith(prefix):
            continue
        policy = name.removeprefix(prefix)
        if policy == 'depth':
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ParameterError(f'{name} is {value!r}; it must be a whole number from 1')
            profile.depth = value
            continue
        kind = {'reliability': ReliabilityPolicy, 'history': HistoryPolicy}.get(policy)
        if kind is None:
            raise ParameterError(f'{name}: there is no policy {policy!r} to set; allowed: depth, history, reliability')
        allowed = [key for key in kind.short_keys() if key != 'unknown']
        if value not in allowed:
            raise ParameterError(f'{name} is {value!r}; allowed: {", ".join(allowed)}')
        setattr(profile, policy, kind(kind.get_from_short_key(value)))


def describe(profile: QoSProfile) -> str:
    """Reliability and durability, as `ros2 topic info --verbose` names them."""
    return f'{profile.reliability.name}, {profile.durability.name}'
