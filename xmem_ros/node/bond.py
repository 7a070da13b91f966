# SPDX-License-Identifier: MIT
"""Bond with a lifecycle manager, as nav2's nodes have: the manager notices a node that hangs."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from rclpy.duration import Duration

if TYPE_CHECKING:
    from rclpy.node import Node

TOPIC = 'bond'  # relative: nav2's manager and its nodes share a namespace
BREAK_S = 0.3  # for the manager to acknowledge
HEARTBEAT_PERIOD_S, HEARTBEAT_TIMEOUT_S = 0.1, 4.0  # defaults of nav2


class ManagerBond:
    """Bond of a node that a lifecycle manager starts. It needs bondpy, which is optional.

    Arguments:
        node: its name is the bond's id.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bond: Any = None
        self._missing = False

    def open(self) -> None:
        """Offer the bond; a manager that wants one joins. Without one it lapses after 10 s."""
        self.close()
        log = self._node.get_logger()
        try:
            from bondpy.bondpy import Bond
        except ImportError:
            if not self._missing:
                self._missing = True
                log.info(
                    'bondpy is not installed, so a lifecycle manager cannot notice if this node hangs: install it '
                    '(apt install ros-<distribution>-bondpy), or give the node a manager of its own without bonds, as '
                    'track.launch.py manager:=true does'
                )
            return
        bond = Bond(self._node, TOPIC, self._node.get_name(), on_formed=lambda: log.info('bond formed'))
        bond.heartbeat_period, bond.heartbeat_timeout = HEARTBEAT_PERIOD_S, HEARTBEAT_TIMEOUT_S
        bond.start()
        self._bond = bond

    def close(self) -> None:
        """Break the bond, so that the manager does not take the end for a fault."""
        bond, self._bond = self._bond, None
        if bond is None:
            return
        try:
            bond.break_bond()
            bond.wait_until_broken(Duration(seconds=BREAK_S))
            bond.shutdown()
            # bondpy destroys only the handles of these.
            self._node.destroy_subscription(bond.sub)
            self._node.destroy_publisher(bond.pub)
        except Exception:  # the node tracks on without a bond
            self._node.get_logger().warning(f'the bond cannot be broken: {traceback.format_exc()}')
