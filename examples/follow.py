# SPDX-License-Identifier: MIT
"""Follow an object: publish a velocity towards its box, like Nav2's controllers.

    python3 follow.py --box 183 113 78 78 --ros-args -r cmd_vel:=/cmd_vel

The robot turns to the object and approaches it until its box has `--height` of the image's height.
It stops if the object is not visible, if the tracker is silent, and at the end of this program.

Warning: this program does not avoid obstacles. Put nav2_collision_monitor between it and the
wheels.
"""

import argparse
import signal
import sys
import time

import rclpy
from geometry_msgs.msg import Twist
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
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])

    # On a signal, stop the robot before ROS.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = rclpy.create_node('follow')
    publisher = node.create_publisher(Twist, 'cmd_vel', 10)
    try:
        with XMemClient(args.node) as client:
            object_id = args.id or client.seed({'target': Box(*args.box)})[0]
            while True:
                try:
                    twist = velocity(client.wait(timeout=0.5), object_id, args.height, args.speed, args.turn)
                except NodeError as error:
                    node.get_logger().warning(f'stopped: {error}', throttle_duration_sec=5.0)
                    twist = Twist()
                publisher.publish(twist)
    except XMemError as error:
        print(f'follow: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    finally:
        publisher.publish(Twist())
        time.sleep(0.2)  # until it is sent
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
