# SPDX-License-Identifier: MIT
"""Every quality of service that the node asks for or offers, by name."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

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


def output() -> QoSProfile:
    """For what the node says of a frame; subscribers of both kinds match."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)


def accepted_seeds() -> QoSProfile:
    """For seeds, which a recorder that starts later must get too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=100,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def diagnostics() -> QoSProfile:
    """As diagnostic_updater has it."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)


def overridable() -> QoSOverridingOptions:
    """History, depth and reliability may be set with parameters `qos_overrides.<topic>.<publisher|subscription>.…`."""
    return QoSOverridingOptions.with_default_policies()


def describe(profile: QoSProfile) -> str:
    """Reliability and durability, as `ros2 topic info --verbose` names them."""
    return f'{profile.reliability.name}, {profile.durability.name}'
