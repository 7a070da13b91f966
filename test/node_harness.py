# SPDX-License-Identifier: MIT
"""Test harness of the node: the real node as a process, and a robot that talks to it.

All communication goes over real DDS. Every wait has a deadline.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from forked_node import ForkedNode
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from masks import bounding_box, iou  # noqa: F401 (for tests of nodes)
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, RegionOfInterest

from xmem_ros.conversions.images import image_from_array, mask_from_image
from xmem_ros.msg import Seed, TrackingEvent
from xmem_ros.srv import HoldImage, LoadMemory, RemoveObjects, ResetTracker, SaveMemory, SeedObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

START_S = 120.0  # importing torch on a busy machine takes long
ANSWER_S = 30.0
FRAME_NS = 33_333_333

TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
}
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CAMERA = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = ANSWER_S) -> Any:
    """Wait for a true value of the condition and return it; raises AssertionError on time-out."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f'waited {seconds:g} s in vain for {what}')


class NodeProcess:
    """Process of the node, `python -m xmem_ros.node.main`.

    Arguments:
        parameters: name → value.
        arguments: further ROS arguments, such as remaps.
        options: arguments of the program, such as --cameras.
    """

    program: tuple[str, ...] = ('-m', 'xmem_ros.node.main')  # arguments of Python

    def __init__(
        self, parameters: dict[str, Any] | None = None, arguments: Iterable[str] = (), options: Iterable[str] = ()
    ) -> None:
        given = [part for name, value in (parameters or {}).items() for part in ('-p', f'{name}:={_yaml(value)}')]
        self._log = Path(tempfile.mkstemp(prefix='xmem_node_', suffix='.log')[1])
        environment = {
            **os.environ,
            'PYTHONUNBUFFERED': '1',
            'RCUTILS_LOGGING_BUFFERED_STREAM': '0',
            'PYTHONFAULTHANDLER': '1',  # on SIGABRT, print the stack of each thread
        }
        self.process = self._start([*options, '--ros-args', *given, *arguments], environment)

    def _start(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes] | ForkedNode:
        with self._log.open('w') as log:
            return subprocess.Popen(
                [sys.executable, *self.program, *arguments], stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def output(self) -> str:
        """Output of the process so far."""
        return self._log.read_text(errors='replace')

    def says(self, text: str, seconds: float = ANSWER_S) -> None:
        """Wait until the process has printed the text."""
        end = time.monotonic() + seconds
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f'{text!r} was not printed within {seconds:g} s, but:\n{self.output}')
            time.sleep(0.05)

    def exit_code(self, seconds: float = START_S) -> int:
        """Wait until the process ends on its own; return its exit code."""
        return self.process.wait(seconds)

    def interrupt(self, sign: signal.Signals = signal.SIGINT) -> int:
        """Send a signal to end the process; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            raise AssertionError(f'did not end on {sign.name}:\n{self.output}') from None

    def close(self) -> None:
        """End the process, if it runs, and remove its log."""
        try:
            self.interrupt()
        finally:
            self._log.unlink(missing_ok=True)


class QuickNodeProcess(NodeProcess):
    """The same, forked from a process that has imported torch."""

    def _start(self, arguments: list[str], environment: dict[str, str]) -> ForkedNode:
        return ForkedNode(arguments, self._log, environment)


class Robot:
    """Client of the node: camera, consumer and operator in one.

    Arguments:
        namespace: namespace of the node and the camera, such as /left.
        camera: QoS of the images.
    """

    process: NodeProcess

    def __init__(self, namespace: str = '', camera: QoSProfile = RELIABLE) -> None:
        self.namespace = namespace
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('robot', context=self.context)
        self.prefix = f'{namespace}/xmem'
        self.images = self.node.create_publisher(Image, f'{namespace}/image', camera)
        self._heard: dict[str, list[Any]] = defaultdict(list)
        self._clients: dict[str, Any] = {}
        self._subscriptions: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._closing = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self.stamp_ns = 1_000_000_000

    def close(self) -> None:
        """Leave the graph."""
        self._closing = True  # the context is still valid, and an executor that was shut down returns at once
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        self.context.try_shutdown()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while self.context.ok() and not self._closing:
                # rclpy's wait set is not safe against subscriptions that another thread destroys
                with contextlib.suppress(InvalidHandle):
                    self._executor.spin()

    # --- topics

    def listen(self, kind: type, topic: str, qos: QoSProfile = RELIABLE) -> list[Any]:
        """Collect the messages of a topic from now on; `~` stands for the node."""
        name = topic.replace('~', self.prefix)
        if name not in self._subscriptions:
            self._subscriptions[name] = self.node.create_subscription(kind, name, self._heard[name].append, qos)
        return self._heard[name]

    def listen_seeds(self) -> list[Any]:
        """Collect the events of seeds, with those that are kept for late subscribers."""
        seeds: list[Any] = []

        def receive(message: Any) -> None:
            if message.kind == TrackingEvent.SEED:
                seeds.append(message)

        name = f'{self.prefix}/events'
        self._subscriptions['seeds'] = self.node.create_subscription(TrackingEvent, name, receive, LATCHED)
        return seeds

    def wait_matched(self, topic: str, seconds: float = START_S) -> None:
        """Wait until the topic has a publisher."""
        name = topic.replace('~', self.prefix)
        wait_until(lambda: self.node.count_publishers(name), f'a publisher of {name}', seconds)

    def wait_camera(self, seconds: float = START_S) -> None:
        """Wait until the node subscribes to the images."""
        wait_until(self.images.get_subscription_count, 'a subscriber of the images', seconds)

    def show(self, pixels: np.ndarray, encoding: str = 'rgb8', *, stamp_ns: int | None = None, **fields: Any) -> Image:
        """Publish an image; its stamp is 1/30 s after the last one unless given.

        fields: values that replace those of the message.
        """
        if stamp_ns is None:
            self.stamp_ns += FRAME_NS
            stamp_ns = self.stamp_ns
        else:
            self.stamp_ns = stamp_ns
        message = image_from_array(pixels, encoding, Image)
        message.header.frame_id = 'camera_optical'
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        for name, value in fields.items():
            setattr(message, name, value)
        self.images.publish(message)
        return message

    def show_and_wait(self, pixels: np.ndarray, labels: list[Any], **options: Any) -> Image:
        """Publish an image, wait for its label image in `labels`, and return that."""
        sent = self.show(pixels, **options)
        wait_until(lambda: labels and labels[-1].header == sent.header, f'labels of {sent.header.stamp}')
        return labels[-1]

    def diagnostics(
        self, condition: Callable[[dict[str, str]], Any], what: str, seconds: float = ANSWER_S
    ) -> dict[str, str]:
        """Wait for diagnostics of the node that satisfy a condition.

        Returns their values, with the status message under the key `message`.
        """
        heard = self.listen(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
        begun = len(heard)

        def found() -> dict[str, str] | None:
            for message in heard[begun:]:
                status = message.status[0]
                if status.name.startswith(self.prefix.lstrip('/')):
                    values = {pair.key: pair.value for pair in status.values} | {'message': status.message}
                    if condition(values):
                        return values
            return None

        return wait_until(found, f'diagnostics of {what}', seconds)

    # --- services

    def call(self, kind: type, service: str, request: Any, seconds: float = ANSWER_S) -> Any:
        """Call a service of the node and return its response."""
        future = self.request(kind, service, request)
        wait_until(future.done, f'an answer of {service}', seconds)
        return future.result()

    def request(self, kind: type, service: str, request: Any) -> Any:
        """Call a service of the node and return the future response."""
        name = service.replace('~', self.prefix)
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        assert client.wait_for_service(START_S), f'no service {name}'
        return client.call_async(request)

    def seed(self, *seeds: Seed, stamp: Any = None, seconds: float = ANSWER_S) -> SeedObjects.Response:
        """Call ~/seed."""
        request = SeedObjects.Request(seeds=list(seeds))
        if stamp is not None:
            request.header.stamp = stamp
        return self.call(SeedObjects, '~/seed', request, seconds)

    def remove(self, *ids: int, everything: bool = False) -> RemoveObjects.Response:
        """Call ~/remove."""
        return self.call(RemoveObjects, '~/remove', RemoveObjects.Request(ids=list(ids), all=everything))

    def reset(self) -> ResetTracker.Response:
        """Call ~/reset."""
        return self.call(ResetTracker, '~/reset', ResetTracker.Request())

    def hold(self, stamp: Any = None) -> HoldImage.Response:
        """Call ~/hold."""
        request = HoldImage.Request()
        if stamp is not None:
            request.header.stamp = stamp
        return self.call(HoldImage, '~/hold', request)

    def save_memory(self, name: str) -> SaveMemory.Response:
        """Call ~/save_memory."""
        return self.call(SaveMemory, '~/save_memory', SaveMemory.Request(name=name))

    def load_memory(self, name: str) -> LoadMemory.Response:
        """Call ~/load_memory."""
        return self.call(LoadMemory, '~/load_memory', LoadMemory.Request(name=name))

    def change_state(self, transition: str) -> bool:
        """Request a lifecycle transition; return whether it succeeded."""
        future = self.request_transition(transition)
        wait_until(future.done, f'an answer of {self.prefix}/change_state', START_S)
        return future.result().success

    def request_transition(self, transition: str) -> Any:
        """Request a lifecycle transition; return the future response."""
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS[transition]
        return self.request(ChangeState, '~/change_state', request)

    def state(self) -> str:
        """Return the node's lifecycle state."""
        return self.call(GetState, '~/get_state', GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: Any) -> Any:
        """Set a parameter; return the rcl_interfaces/SetParametersResult."""
        parameter = Parameter(name, value=value).to_parameter_msg()
        return self.call(SetParameters, '~/set_parameters', SetParameters.Request(parameters=[parameter])).results[0]

    def get_parameter(self, name: str) -> Any:
        """Return the value of a parameter."""
        from rclpy.parameter import parameter_value_to_python

        return parameter_value_to_python(
            self.call(GetParameters, '~/get_parameters', GetParameters.Request(names=[name])).values[0]
        )


_namespaces = itertools.count(1)


@contextlib.contextmanager
def running(
    parameters: dict[str, Any] | None = None,
    arguments: Iterable[str] = (),
    camera: QoSProfile = RELIABLE,
    *,
    process_of: type[NodeProcess] = QuickNodeProcess,
) -> Iterator[Robot]:
    """Start a node in its own namespace and yield its robot; `robot.process` is the node.

    With `autostart` (default), the node is active.
    process_of: NodeProcess for tests of the start, the end or the environment of Python.
    """
    namespace = f'/robot_{next(_namespaces)}'
    process = process_of(parameters, [*arguments, '-r', f'__ns:={namespace}'])
    robot = Robot(namespace, camera)
    robot.process = process
    try:
        if (parameters or {}).get('autostart', True):
            process.says('active: waiting for images', START_S)
            robot.wait_camera()
        yield robot
    finally:
        try:
            process.close()
        finally:
            robot.close()


def mask_seed(mask: np.ndarray, name: str = '', *, object_id: int = 0, kind: int = Seed.MASK) -> Seed:
    """Make a seed of kind MASK or LABELS from H×W bool or uint8."""
    pixels = mask.astype(np.uint8) * 255 if mask.dtype == bool else mask
    return Seed(kind=kind, name=name, id=object_id, mask=image_from_array(pixels, 'mono8', Image))


def box_seed(x: int, y: int, width: int, height: int, name: str = '') -> Seed:
    """Make a seed of kind BOX."""
    return Seed(kind=Seed.BOX, name=name, box=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height))


def points_seed(points: Iterable[tuple[float, float]], labels: Iterable[int], name: str = '') -> Seed:
    """Make a seed of kind POINTS."""
    from geometry_msgs.msg import Point32

    return Seed(
        kind=Seed.POINTS,
        name=name,
        points=[Point32(x=float(x), y=float(y)) for x, y in points],
        point_labels=array.array('b', labels),
    )


def pixels_of(message: Image) -> np.ndarray:
    """Return the pixels H×W uint8 of a mono8 image, or of a mask as PNG."""
    if message.encoding == 'png':
        return mask_from_image(message)
    assert message.encoding == 'mono8'
    assert message.step == message.width
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)


def flat(objects: list[Any]) -> Iterator[Any]:
    """Iterate over the objects of all messages."""
    return (item for array_ in objects for item in array_.objects)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"'{value}'" if isinstance(value, str) else str(value)
