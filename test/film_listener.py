# SPDX-License-Identifier: MIT
"""Subscriber of a camera's images on /film."""

import time
from contextlib import contextmanager


@contextmanager
def listening(take):
    """Pass each image to `take`; yield the node and a function that spins until a condition."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('listener', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.create_subscription(Image, '/film', take, QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE))

    def spin_until(done, seconds=60.0):
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        return done()

    yield node, spin_until
    executor.shutdown()
    node.destroy_node()
    context.shutdown()
