# SPDX-License-Identifier: MIT
"""Camera process: publishes a clip as images at its own rate, whatever its subscribers do."""

from __future__ import annotations

import argparse
import array
import contextlib
import io
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from xmem_ros import atomic
from xmem_ros.demo.source import Source, add_source_arguments, source_of
from xmem_ros.errors import XMemError
from xmem_ros.outside_text import for_terminal, say

if TYPE_CHECKING:
    import numpy as np

HOLD_RATE = 10.0  # frames/s while the first frame is repeated
ACKNOWLEDGE_S = 2.0  # maximum wait for delivery of the last frame


class SceneCamera(Node):
    """Publisher of frames as rgb8 images, stamped with the time of publishing.

    `hold` repeats the first frame until the service `~/start` (std_srvs/Trigger) is called. In the
    meantime, objects can be seeded.

    Arguments:
        topic: topic of the images.
        frame_id: frame_id of the images' headers.
        log: file that gets a line for each image: stamp [ns], and index in the clip; -1 while
            held.
    """

    def __init__(self, topic: str, frame_id: str, log: TextIO | None = None) -> None:
        super().__init__('scene_camera')
        self._frame_id, self._log = frame_id, log
        self._publisher = self.create_publisher(
            Image, topic, QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        )
        self.started = threading.Event()
        self.create_service(Trigger, '~/start', self._start)

    def _start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = not self.started.is_set()
        response.message = 'the clip plays' if response.success else 'the clip is already playing'
        self.started.set()
        return response

    def publish(self, frame: np.ndarray, index: int) -> None:
        """Publish a frame H×W×3 uint8 RGB and log its index in the clip."""
        message = Image()
        message.height, message.width = frame.shape[:2]
        message.encoding = 'rgb8'
        message.step = frame.shape[1] * 3
        message.data = array.array('B', frame.tobytes())
        message.header.frame_id = self._frame_id
        now = self.get_clock().now()
        message.header.stamp = now.to_msg()
        self._publisher.publish(message)
        if self._log:
            print(now.nanoseconds, index, file=self._log, flush=True)

    def wait_for_subscriber(self) -> None:
        """Wait for a subscriber of the images."""
        logged = time.monotonic()
        while rclpy.ok() and not self._publisher.get_subscription_count():
            if time.monotonic() - logged > 5:
                self.get_logger().info(f'waiting for a subscriber of {self._publisher.topic_name}')
                logged = time.monotonic()
            time.sleep(0.02)

    def hold(self, frame: np.ndarray, rate: float) -> None:
        """Repeat a frame until `~/start` is called."""
        while rclpy.ok() and not self.started.wait(1 / rate):
            self.publish(frame, -1)

    def play(self, source: Source) -> None:
        """Publish the clip once, each frame at its time; late frames follow immediately."""
        begin = time.monotonic()
        for index, (_, frame) in enumerate(source):
            time.sleep(max(0.0, begin + source.time_s(index) - time.monotonic()))
            if not rclpy.ok():
                return
            self.publish(frame, index)
        late = time.monotonic() - begin - source.time_s(len(source) - 1) - 1 / source.rate
        if late > 1:
            self.get_logger().warning(f'the clip took {late:.1f} s longer than at {source.rate:g} frames/s')

    def finish(self) -> None:
        """Wait until reliable subscribers have the last image, at most `ACKNOWLEDGE_S`."""
        try:
            self._publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=ACKNOWLEDGE_S))
        except AttributeError:  # before Iron
            time.sleep(ACKNOWLEDGE_S)


def run(camera: SceneCamera, source: Source, args: argparse.Namespace) -> None:
    """Wait, hold and play, as the arguments require."""
    if args.wait_for_subscriber:
        camera.wait_for_subscriber()
    if args.hold:
        camera.hold(next(iter(source))[1], min(HOLD_RATE, source.rate))
    camera.play(source)
    while args.loop and rclpy.ok():
        camera.play(source)
    if rclpy.ok():
        camera.finish()


def main(arguments: list[str] | None = None) -> int:
    """Run the camera; returns exit code 0, or 2 if the clip cannot be played."""
    parser = argparse.ArgumentParser(prog='scene_camera', description='Publish a clip as the images of a camera.')
    add_source_arguments(parser)
    parser.add_argument('--topic', default='image', metavar='NAME', help='topic of the images (default: %(default)s)')
    parser.add_argument(
        '--frame-id', default='camera', metavar='NAME', help="frame_id of the images' headers (default: %(default)s)"
    )
    parser.add_argument('--loop', action='store_true', help='repeat the clip')
    parser.add_argument('--hold', action='store_true', help='repeat the first frame until ~/start is called')
    parser.add_argument('--wait-for-subscriber', action='store_true', help='wait for a subscriber before publishing')
    parser.add_argument('--log', type=Path, metavar='FILE', help='write stamp (ns) and index of every image')
    argv = sys.argv if arguments is None else ['scene_camera', *arguments]
    args = parser.parse_args(remove_ros_args(argv)[1:])
    try:
        source = source_of(args)
        log = io.TextIOWrapper(atomic.open_new(args.log), write_through=True) if args.log else None
    except (XMemError, OSError) as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(args=argv)
    camera = SceneCamera(args.topic, args.frame_id, log)
    executor = SingleThreadedExecutor()
    executor.add_node(camera)
    spinner = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinner.start()
    try:
        run(camera, source, args)
    except XMemError as error:
        say(f'scene_camera: error: {for_terminal(error)}', file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError:
        if rclpy.ok():  # otherwise a signal shut the context down during publishing
            raise
    finally:
        rclpy.try_shutdown()
        spinner.join(timeout=2)
        if log:
            log.close()
    return 0


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


if __name__ == '__main__':
    sys.exit(main())
