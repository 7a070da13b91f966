# SPDX-License-Identifier: MIT
"""A camera: a process that publishes a clip as images, at the clip's own rate whatever its subscribers can follow."""

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

HOLD_RATE = 10.0  # frames a second while the first frame is held
ACKNOWLEDGE_S = 2.0  # how long the last frame is waited for to arrive


class SceneCamera(Node):
    """Publishes frames as rgb8 images, stamped with the time of publishing.

    With `hold` it repeats the first frame until its service `~/start` (std_srvs/Trigger) is called, so that whoever
    wants to seed an object there has the time for it; then it plays the clip from the first frame on.

    Arguments:
        topic: for the images.
        frame_id: of the images' headers.
        log: gets a line for every image published: its stamp in nanoseconds and its index in the clip, -1 while held.
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
        response.message = 'the clip plays' if response.success else 'the clip plays already'
        self.started.set()
        return response

    def publish(self, frame: np.ndarray, index: int) -> None:
        """Publish a frame, H×W×3 uint8 RGB, which has this index in the clip."""
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
        """Return once somebody subscribes to the images."""
        told = time.monotonic()
        while rclpy.ok() and not self._publisher.get_subscription_count():
            if time.monotonic() - told > 5:
                self.get_logger().info(f'waiting for a subscriber of {self._publisher.topic_name}')
                told = time.monotonic()
            time.sleep(0.02)

    def hold(self, frame: np.ndarray, rate: float) -> None:
        """Repeat a frame until `~/start` is called."""
        while rclpy.ok() and not self.started.wait(1 / rate):
            self.publish(frame, -1)

    def play(self, source: Source) -> None:
        """Publish the clip once, frame k at k/rate seconds; late frames follow at once, none is left out."""
        begin = time.monotonic()
        for index, (_, frame) in enumerate(source):
            time.sleep(max(0.0, begin + index / source.rate - time.monotonic()))
            if not rclpy.ok():
                return
            self.publish(frame, index)
        late = time.monotonic() - begin - len(source) / source.rate
        if late > 1:
            self.get_logger().warning(f'the clip took {late:.1f} s longer than at {source.rate:g} frames a second')

    def finish(self) -> None:
        """Wait a moment until reliable subscribers have the last image."""
        try:
            self._publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=ACKNOWLEDGE_S))
        except AttributeError:  # before Iron
            time.sleep(ACKNOWLEDGE_S)


def run(camera: SceneCamera, source: Source, args: argparse.Namespace) -> None:
    """Wait, hold and play as the arguments say."""
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
    """Run the camera; returns the exit code: 0, or 2 where the clip cannot be played."""
    parser = argparse.ArgumentParser(prog='scene_camera', description='Publish a clip as the images of a camera.')
    add_source_arguments(parser)
    parser.add_argument('--topic', default='image', help='for the images (default: %(default)s)')
    parser.add_argument('--frame-id', default='camera', help="of the images' headers (default: %(default)s)")
    parser.add_argument('--loop', action='store_true', help='play the clip again and again')
    parser.add_argument('--hold', action='store_true', help='repeat the first frame until ~/start is called')
    parser.add_argument('--wait-for-subscriber', action='store_true', help='publish nothing before somebody subscribes')
    parser.add_argument('--log', type=Path, metavar='FILE', help='write stamp (ns) and index of every image here')
    everything = sys.argv if arguments is None else ['scene_camera', *arguments]
    args = parser.parse_args(remove_ros_args(everything)[1:])
    try:
        source = source_of(args)
        log = io.TextIOWrapper(atomic.open_new(args.log), write_through=True) if args.log else None
    except (XMemError, OSError) as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(args=everything)
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
        if rclpy.ok():  # otherwise a signal ended the context while an image was on its way
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
