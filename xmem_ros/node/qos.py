# SPDX-License-Identifier: MIT
"""QoS profiles of the node, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from xmem_ros.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

BEST_AVAILABLE = getattr(ReliabilityPolicy, 'BEST_AVAILABLE', None)
"""Reliable if every publisher is, else best effort. In rclpy since Iron."""


def newest_image() -> QoSProfile:
    """Profile for a live camera: the newest image, with any publisher's reliability."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=BEST_AVAILABLE or ReliabilityPolicy.BEST_EFFORT
    )


def every_image(depth: int) -> QoSProfile:
    """Profile for a replay: lossless while the sender is at most `depth` images ahead."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def beside_images(depth: int) -> QoSProfile:
    """Profile for topics beside the images, with any publisher's reliability."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=BEST_AVAILABLE or ReliabilityPolicy.BEST_EFFORT
    )


def output() -> QoSProfile:
    """Profile for results of a frame; matches reliable and best-effort subscribers."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)


EVENTS_KEPT = 32
"""Depth of ~/events: enough to begin 16 objects one by one and correct each, and small in bytes."""


def events() -> QoSProfile:
    """Profile for changes of the objects, whose newest a recorder that starts later gets too."""
    return latched(EVENTS_KEPT)


def latched(depth: int) -> QoSProfile:
    """Profile whose newest messages also reach later subscribers."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def diagnostics() -> QoSProfile:
    """Profile of diagnostic_updater."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)


def overridable() -> QoSOverridingOptions:
    """Allow `qos_overrides.<topic>.<publisher|subscription>.…` for history, depth, reliability."""
    return QoSOverridingOptions.with_default_policies()


def override(profile: QoSProfile, parameters: Mapping[str, Any], topic: str) -> None:
    """Apply the user's `qos_overrides.<topic>.subscription.…` to a profile.

    rclpy's own overriding options serve a subscription that is created once. They keep the values
    of the first subscription, although the parameter `queue` may ask for others later.

    Args:
        profile: changed in place.
        parameters: name → value, as given by the user.
        topic: fully resolved.

    Raises:
        ParameterError: an unknown policy, or a value that the policy does not allow.
    """
    prefix = f'qos_overrides.{topic}.subscription.'
    for name, value in parameters.items():
        if not name.startswith(prefix):
            continue
        policy = name.removeprefix(prefix)
        if policy == 'depth':
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ParameterError(f'{name} is {value!r}; allowed: a whole number of at least 1')
            profile.depth = value
            continue
        kind = {'reliability': ReliabilityPolicy, 'history': HistoryPolicy}.get(policy)
        if kind is None:
            raise ParameterError(f'{name}: unknown policy {policy!r}; allowed: depth, history, reliability')
        allowed = [key for key in kind.short_keys() if key != 'unknown']
        if value not in allowed:
            raise ParameterError(f'{name} is {value!r}; allowed: {", ".join(allowed)}')
        setattr(profile, policy, kind(kind.get_from_short_key(value)))


def describe(profile: QoSProfile) -> str:
    """Name reliability and durability as `ros2 topic info --verbose` does."""
    return f'{profile.reliability.name}, {profile.durability.name}'
