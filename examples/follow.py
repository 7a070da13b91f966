# SPDX-License-Identifier: MIT
"""Drive towards an object: its box becomes a velocity, as Nav2's controllers publish it.

    python3 follow.py --box 183 113 78 78 --ros-args -r cmd_vel:=/cmd_vel

The object is turned to, and approached until its box is as high as `--height` of the image. The robot stands still
where the object is not seen, nothing is heard of the tracker, or this ends. Mind: nothing here looks out for obstacles;
let nav2_collision_monitor stand between this and the wheels.
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
    """Velocity towards an object.

    Args:
        frame: what the tracker says.
        object_id: of the object.
        height: that its box is to have, of the image's height.
        speed: the largest forward velocity [m/s].
        turn: the largest angular velocity [rad/s], taken where the object is at the image's edge.
    """
    twist = Twist()
    item = frame.get(object_id)
    if item is None or item.box is None:
        return twist
    rows, columns = frame.labels.shape
    x, _, box_width, box_height = item.box
    offset = (x + box_width / 2) / columns * 2 - 1  # -1 left edge, 1 right edge
    twist.angular.z = -turn * offset
    # Slower the nearer it is and the more it is aside; never backwards.
    twist.linear.x = speed * max(1 - box_height / rows / height, 0.0) * (1 - abs(offset))
    return twist


def main() -> int:
    """Seed, then follow until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(description='Drive towards an object that xmem_ros tracks.')
    parser.add_argument('--node', default='/xmem', help='the tracker (default: %(default)s)')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--box', type=int, nargs=4, metavar=('X', 'Y', 'W', 'H'), help='around it in the newest image')
    which.add_argument('--id', type=int, help='of an object that is tracked already')
    parser.add_argument('--height', type=float, default=0.6, help='where to stop, share of the image (%(default)s)')
    parser.add_argument('--speed', type=float, default=0.3, help='m/s at most (default: %(default)s)')
    parser.add_argument('--turn', type=float, default=0.8, help='rad/s at most (default: %(default)s)')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])

    # A signal is to stop the robot first, and ROS afterwards.
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
                    node.get_logger().warning(f'standing still: {error}', throttle_duration_sec=5.0)
                    twist = Twist()
                publisher.publish(twist)
    except XMemError as error:
        print(f'follow: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    finally:
        publisher.publish(Twist())
        time.sleep(0.2)  # for it to leave
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
