# SPDX-License-Identifier: MIT
"""Camera process: publishes a clip at its own rate, or a stream, whatever its subscribers do."""

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
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from xmem_ros import atomic
from xmem_ros.demo.source import Source, add_source_arguments, clip_of, source_of
from xmem_ros.demo.stream_source import newest_frames
from xmem_ros.errors import ParameterError, XMemError
from xmem_ros.outside_text import for_log, for_terminal, say
from xmem_ros.video.address import StreamAddress, stream_address
from xmem_ros.video.writer import VideoWriter

if TYPE_CHECKING:
    import numpy as np

HOLD_RATE = 10.0  # frames/s while the first frame is repeated
_CLOCKS_NS = 1_000_000_000  # that two clocks drift apart at most between images; more is a step of one
ACKNOWLEDGE_S = 2.0  # maximum wait for delivery of the last frame


class SceneCamera(Node):
    """Publisher of frames as rgb8 images, stamped with the time of publishing or, live, of arrival.

    `hold` repeats the first frame until the service `~/start` (std_srvs/Trigger) is called. In the
    meantime, objects can be seeded. A stream goes on, but its frames do not count until then.

    Arguments:
        topic: topic of the images.
        frame_id: frame_id of the images' headers.
        log: file that gets a line for each image: stamp [ns], and index in the clip; -1 while
            held.
    """

    def __init__(self, topic: str, frame_id: str, log: TextIO | None = None) -> None:
        super().__init__('scene_camera')
        self._frame_id, self._log = frame_id, log
        self._stamp_ns = 0  # of the last image of a stream
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

    def publish(self, frame: np.ndarray, index: int, arrived_ns: int | None = None) -> None:
        """Publish a frame H×W×3 uint8 RGB and log its index in the clip.

        arrived_ns: when it arrived, by `time.monotonic_ns`; None: now.
        """
        message = Image()
        message.height, message.width = frame.shape[:2]
        message.encoding = 'rgb8'
        message.step = frame.shape[1] * 3
        message.data = array.array('B', frame.tobytes())
        message.header.frame_id = self._frame_id
        stamp_ns = self.get_clock().now().nanoseconds
        if arrived_ns is not None:
            stamp_ns -= time.monotonic_ns() - arrived_ns
            # two may have arrived within the time that passes between reading both clocks
            if stamp_ns <= self._stamp_ns < stamp_ns + _CLOCKS_NS:
                stamp_ns = self._stamp_ns + 1
            self._stamp_ns = stamp_ns
        message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        self._publisher.publish(message)
        if self._log:
            print(stamp_ns, index, file=self._log, flush=True)

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

    def play_stream(self, address: StreamAddress, args: argparse.Namespace) -> None:
        """Publish the newest frame of a stream, again and again, until its end."""
        index, due = 0, 0.0
        with VideoWriter(args.save, args.rate or 30.0) if args.save else contextlib.nullcontext() as video:
            for frame, arrived_ns in newest_frames(address, self._tell, rclpy.ok):
                arrived = arrived_ns / 1e9
                if args.rate:
                    if arrived < due:
                        continue
                    due = max(due, arrived - 1 / args.rate) + 1 / args.rate
                held = args.hold and not self.started.is_set()
                self.publish(frame, -1 if held else index, arrived_ns)
                if held:
                    continue
                if video is not None:
                    video.write(frame, arrived_ns)
                index += 1
                if index == args.frames:
                    return

    def _tell(self, text: str) -> None:
        self.get_logger().info(for_log(text))

    def finish(self) -> None:
        """Wait until reliable subscribers have the last image, at most `ACKNOWLEDGE_S`."""
        try:
            self._publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=ACKNOWLEDGE_S))
        except AttributeError:  # before Iron
            time.sleep(ACKNOWLEDGE_S)


def run(camera: SceneCamera, source: Source | StreamAddress, args: argparse.Namespace) -> None:
    """Wait, hold and play, as the arguments require."""
    if args.wait_for_subscriber:
        camera.wait_for_subscriber()
    if isinstance(source, StreamAddress):
        camera.play_stream(source, args)
        if rclpy.ok():
            camera.finish()
        return
    if args.hold:
        camera.hold(next(iter(source))[1], min(HOLD_RATE, source.rate))
    camera.play(source)
    while args.loop and rclpy.ok():
        camera.play(source)
    if rclpy.ok():
        camera.finish()


def main(arguments: list[str] | None = None) -> int:
    """Run the camera; returns exit code 0, or 2 if the clip or stream cannot be played."""
    parser = argparse.ArgumentParser(
        prog='scene_camera', description='Publish a clip, or a live stream, as the images of a camera.'
    )
    add_source_arguments(parser)
    parser.add_argument('--topic', default='image', metavar='NAME', help='topic of the images (default: %(default)s)')
    parser.add_argument(
        '--frame-id', default='camera', metavar='NAME', help="frame_id of the images' headers (default: %(default)s)"
    )
    parser.add_argument('--loop', action='store_true', help='repeat the clip')
    parser.add_argument(
        '--hold', action='store_true', help='repeat the first frame until ~/start is called; a stream goes on'
    )
    parser.add_argument('--wait-for-subscriber', action='store_true', help='wait for a subscriber before publishing')
    parser.add_argument('--log', type=Path, metavar='FILE', help='write stamp (ns) and index of every image')
    parser.add_argument('--save', type=Path, metavar='FILE', help='write the published frames of a stream (.mp4)')
    argv = sys.argv if arguments is None else ['scene_camera', *arguments]
    args = parser.parse_args(remove_ros_args(argv)[1:])
    try:
        source = _source_of(args)
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
    except RuntimeError:  # base of the C layer's RCLError, which has no public name
        if rclpy.ok():  # otherwise a signal shut the context down during publishing
            raise
    finally:
        rclpy.try_shutdown()
        spinner.join(timeout=2)
        if log:
            log.close()
    return 0


def _source_of(args: argparse.Namespace) -> Source | StreamAddress:
    address = stream_address(clip_of(args))
    if address is None:
        if args.save:
            raise ParameterError('--save requires a stream; omit it')
        return source_of(args)
    if args.loop:
        raise ParameterError(f'{address}: a stream cannot be repeated; omit --loop')
    return address


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


if __name__ == '__main__':
    sys.exit(main())
