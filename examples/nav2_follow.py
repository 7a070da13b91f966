#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Follow an object with nav2: its dynamic-following behaviour tree, with a goal that moves along.

Publishes the position of the object on `goal_update`, for nav2's GoalUpdater, and sends
NavigateToPose with follow_point.xml while the object is measured. If it is not measured for a
while, and at the end of this program, the goal is cancelled, and the robot stops.

Needs nav2_msgs, and the node with the parameters depth.enabled and depth.target_frame, the latter
equal to `--frame`: in the frame of a camera, x and y are no position on the floor.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from xmem_ros.msg import ObjectMotion, ObjectMotionArray

WALKING = 0.2  # m/s; a slower object has no direction
CHECK_S = 5.0  # between two looks for the tracker and nav2
ANSWER_S = 2.0  # for nav2 to answer at the end


def goal_of(message: ObjectMotionArray, name: str, yaw: float) -> tuple[PoseStamped, float] | None:
    """Return the goal for the measured object of a name, and its yaw [rad]; None without one.

    Arguments:
        message: objects of an image, in a frame whose z axis points up.
        name: of the object.
        yaw: of the last goal; kept while the object stands.
    """
    found = [item for item in message.motions if item.name == name and item.measured]
    if not found:
        return None
    item: ObjectMotion = min(found, key=lambda item: item.id)
    if math.hypot(item.velocity.x, item.velocity.y) > WALKING:
        yaw = math.atan2(item.velocity.y, item.velocity.x)
    goal = PoseStamped(header=message.header)
    goal.pose.position.x, goal.pose.position.y = item.position.x, item.position.y
    goal.pose.orientation.z, goal.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    return goal, yaw


class Follower(Node):
    """Publishes goals and starts and stops the navigation.

    Arguments:
        name: of the object.
        tracker: full name of the node xmem.
        frame: frame of the goals; objects in another one are ignored.
        patience: time without a measurement after which the robot stops [s].
        tree: path of the behaviour tree; empty: only `goal_update` is published.
    """

    def __init__(self, name: str, tracker: str, frame: str, patience: float, tree: str) -> None:
        super().__init__('xmem_follow')
        self._name, self._tracker, self._frame = name, tracker, frame
        self._patience, self._tree = patience, tree
        self._yaw, self._measured_at = 0.0, 0.0
        self._goal: Any = None  # handle of the goal that nav2 follows
        self._sent: Any = None  # future of a goal that nav2 has not answered yet
        self._stopping = False
        self._updates = self.create_publisher(PoseStamped, 'goal_update', 10)
        self._client: Any = None
        if tree:
            from nav2_msgs.action import NavigateToPose

            self._action = NavigateToPose
            self._client = ActionClient(self, NavigateToPose, 'navigate_to_pose')
        self.create_subscription(ObjectMotionArray, f'{tracker}/motions', self._on_motions, 10)
        self.create_timer(0.1, self._watch)
        self.create_timer(CHECK_S, self._check_others)

    def stop(self, executor: Executor) -> None:
        """Cancel the navigation, also a goal that nav2 has not answered yet; wait 4 s at most."""
        self._stopping = True
        sent, handle = self._sent, self._goal
        if sent is not None:
            executor.spin_until_future_complete(sent, ANSWER_S)
            handle = sent.result() if sent.done() and sent.result().accepted else None
            if not sent.done():
                self.get_logger().error('nav2 did not answer the goal: the robot may still move')
        if handle is not None:
            cancelled = handle.cancel_goal_async()
            executor.spin_until_future_complete(cancelled, ANSWER_S)
            if not cancelled.done():
                self.get_logger().error('nav2 did not answer the cancellation: the robot may still move')

    def _on_motions(self, message: ObjectMotionArray) -> None:
        if self._stopping:
            return
        if message.header.frame_id != self._frame:
            self.get_logger().error(
                f'the objects are in the frame {message.header.frame_id!r}, but --frame is {self._frame!r}; set the '
                f'parameter depth.target_frame of {self._tracker} to {self._frame!r}',
                throttle_duration_sec=CHECK_S,
            )
            return
        found = goal_of(message, self._name, self._yaw)
        if found is None:
            return
        goal, self._yaw = found
        self._measured_at = time.monotonic()
        self._updates.publish(goal)
        busy = self._goal is not None or self._sent is not None
        if self._client is None or busy or not self._client.server_is_ready():
            return
        request = self._action.Goal(pose=goal, behavior_tree=self._tree)
        self._sent = self._client.send_goal_async(request)
        self._sent.add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        self._sent = None
        handle = future.result()
        if not handle.accepted:
            self.get_logger().warning('nav2 rejected the goal', throttle_duration_sec=5.0)
            return
        self._goal = handle
        self.get_logger().info(f'following {self._name}')
        handle.get_result_async().add_done_callback(lambda _: self._on_end(handle))

    def _on_end(self, handle: object) -> None:
        if self._goal is handle:
            self._goal = None

    def _watch(self) -> None:
        if self._goal is not None and time.monotonic() - self._measured_at > self._patience:
            self.get_logger().warning(f'{self._name} was not seen for {self._patience:g} s: stopping')
            self._goal.cancel_goal_async()
            self._goal = None

    def _check_others(self) -> None:
        topic = f'{self._tracker}/motions'
        if not self.count_publishers(topic):
            self.get_logger().warning(
                f'nobody publishes {topic}: start the tracker with depth.enabled, or give its name with --node'
            )
        if self._client is not None and not self._client.server_is_ready():
            name = f'{self.get_namespace().rstrip("/")}/navigate_to_pose'
            self.get_logger().warning(
                f'there is no action {name}: start nav2, or give its namespace with --ros-args -r __ns:=/NAMESPACE'
            )


def tree_of_nav2() -> str:
    """Return the path of nav2's behaviour tree; raises LookupError without nav2."""
    from ament_index_python.packages import get_package_share_directory

    return str(Path(get_package_share_directory('nav2_bt_navigator')) / 'behavior_trees' / 'follow_point.xml')


def main() -> int:
    """Follow until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(description='Follow an object that xmem_ros tracks, with nav2.')
    parser.add_argument('--name', default='person', help='name of the object (default: %(default)s)')
    parser.add_argument('--node', default='/xmem', help='name of the tracker (default: %(default)s)')
    parser.add_argument(
        '--frame', default='map', help="frame of the goals, the tracker's depth.target_frame (default: %(default)s)"
    )
    parser.add_argument('--patience', type=float, default=2.0, help='seconds unseen before stopping (default: 2)')
    parser.add_argument('--tree', default='', help="behaviour tree (default: nav2's follow_point.xml)")
    parser.add_argument('--update-only', action='store_true', help='only publish goal_update; do not navigate')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    tree = ''
    if not args.update_only:
        try:
            import nav2_msgs.action  # noqa: F401

            tree = args.tree or tree_of_nav2()
        except (ImportError, LookupError) as error:
            print(
                f'nav2_follow: nav2 is not installed ({error}): apt install ros-$ROS_DISTRO-navigation2, or give '
                '--update-only',
                file=sys.stderr,
            )
            return 2
    # On a signal, cancel the goal before ROS stops. Launch and a terminal may both send one.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    follower = Follower(args.name, args.node.rstrip('/'), args.frame, args.patience, tree)
    executor = SingleThreadedExecutor()
    executor.add_node(follower)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
    finally:
        follower.stop(executor)
        follower.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
