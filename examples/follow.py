# SPDX-License-Identifier: MIT
"""Follow an object: publish a velocity towards its box, like Nav2's controllers.

    python3 follow.py --box 183 113 78 78 --ros-args -r cmd_vel:=/cmd_vel

The robot turns to the object and approaches it until its box has `--height` of the image's height.
It stops if the object is not visible, if no result has arrived for `--watchdog` seconds, and at the
end of this program. `--stamped` publishes TwistStamped, as Nav2 expects since Kilted.

Warning: this program does not avoid obstacles. Put nav2_collision_monitor between it and the
wheels.
"""

import argparse
import signal
import sys
import time

import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from xmem_ros.client import Box, Frame, XMemClient
from xmem_ros.errors import NodeError, XMemError


def velocity(frame: Frame, object_id: int, height: float, speed: float, turn: float) -> Twist:
    """Return the velocity towards an object.

    Args:
        frame: result of the tracker.
        object_id: id of the object.
        height: goal of the box's height, relative to the image.
        speed: largest forward velocity [m/s].
        turn: largest angular velocity [rad/s], for an object at the image's edge.
    """
    twist = Twist()
    item = frame.get(object_id)
    if item is None or item.box is None:
        return twist
    rows, columns = frame.labels.shape
    x, _, box_width, box_height = item.box
    offset = (x + box_width / 2) / columns * 2 - 1  # -1 left edge, 1 right edge
    twist.angular.z = -turn * offset
    # Slower near the object and off the image's centre; never backwards.
    twist.linear.x = speed * max(1 - box_height / rows / height, 0.0) * (1 - abs(offset))
    return twist


class Wheels:
    """Publisher of velocities on `cmd_vel`.

    Arguments:
        node: the publishing node.
        frame_id: frame of TwistStamped, such as base_link; empty: publish Twist.
    """

    def __init__(self, node: Node, frame_id: str = '') -> None:
        self._node, self._frame_id = node, frame_id
        self._publisher = node.create_publisher(TwistStamped if frame_id else Twist, 'cmd_vel', 10)

    def move(self, twist: Twist) -> None:
        """Publish a velocity."""
        if not self._frame_id:
            self._publisher.publish(twist)
            return
        message = TwistStamped(twist=twist)
        message.header.frame_id, message.header.stamp = self._frame_id, self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def stop(self) -> None:
        """Publish the velocity zero."""
        self.move(Twist())


def main() -> int:
    """Seed, then follow until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(description='Follow an object that xmem_ros tracks.')
    parser.add_argument('--node', default='/xmem', help='name of the tracker (default: %(default)s)')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        '--box', type=int, nargs=4, metavar=('X', 'Y', 'W', 'H'), help='box of the object in the newest image'
    )
    which.add_argument('--id', type=int, help='id of a tracked object')
    parser.add_argument(
        '--height',
        type=float,
        default=0.6,
        help='height of the box to stop at, share of the image (default: %(default)s)',
    )
    parser.add_argument('--speed', type=float, default=0.3, help='largest velocity, m/s (default: %(default)s)')
    parser.add_argument(
        '--turn', type=float, default=0.8, help='largest angular velocity, rad/s (default: %(default)s)'
    )
    parser.add_argument(
        '--watchdog',
        type=float,
        default=0.3,
        help='time without a result after which to stop, s (default: %(default)s)',
    )
    parser.add_argument('--stamped', action='store_true', help='publish TwistStamped instead of Twist')
    parser.add_argument('--frame', default='base_link', help='frame_id of TwistStamped (default: %(default)s)')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])

    # On a signal, stop the robot before ROS.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = rclpy.create_node('follow')
    wheels = Wheels(node, args.frame if args.stamped else '')
    try:
        wheels.stop()
        with XMemClient(args.node) as client:
            object_id = args.id or client.seed({'target': Box(*args.box)})[0]
            while True:
                try:
                    frame = client.wait(timeout=args.watchdog)
                except NodeError as error:
                    wheels.stop()  # before anything that may take time
                    node.get_logger().warning(f'stopped: {error}', throttle_duration_sec=5.0)
                    continue
                wheels.move(velocity(frame, object_id, args.height, args.speed, args.turn))
    except XMemError as error:
        print(f'follow: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    finally:
        wheels.stop()
        time.sleep(0.2)  # until it is sent
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
