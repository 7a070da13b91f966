# SPDX-License-Identifier: MIT
"""ROS node of the demonstration: calls ~/seed and records the topics of the tracker."""

from __future__ import annotations

import array
import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import rclpy
import rclpy.subscription
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, RegionOfInterest
from std_srvs.srv import Trigger

from xmem_ros.child_process import ProcessError
from xmem_ros.conversions.objects import object_of
from xmem_ros.msg import Seed, TrackedObjectArray
from xmem_ros.srv import SeedObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rclpy.client import Client

    from xmem_ros.demo.truth import DemoSeed
    from xmem_ros.objects import TrackedObject

DEPTH = 1000  # of the subscriptions, so that no message is lost while files are written
ANSWER_S = 60.0


@dataclass
class Recorded:
    """Results of the node for one image."""

    published_ns: int = 0
    objects: list[TrackedObject] | None = None
    labels_png: np.ndarray | None = None

    def decode(self) -> np.ndarray:
        """Decode the labels, H×W uint8."""
        assert self.labels_png is not None
        image = cv2.imdecode(self.labels_png, cv2.IMREAD_UNCHANGED)
        assert image is not None
        return image


class Recorder(Node):
    """Recorder of a node's `~/objects` and `~/labels`, by stamp in ns; a context manager."""

    def __init__(self, node: str = '/xmem') -> None:
        super().__init__('demo_recorder')
        self._lock = threading.Lock()
        self._recorded: dict[int, Recorded] = {}
        reliability = getattr(ReliabilityPolicy, 'BEST_AVAILABLE', ReliabilityPolicy.RELIABLE)
        qos = QoSProfile(depth=DEPTH, reliability=reliability)
        # Callbacks on Humble get only the message.
        has_info = hasattr(rclpy.subscription, 'MessageInfo')
        on_objects = self._on_objects_with_info if has_info else self._on_objects
        self.create_subscription(TrackedObjectArray, f'{node}/objects', on_objects, qos)
        self.create_subscription(Image, f'{node}/labels', self._on_labels, qos)
        self._seed_client: Any = self.create_client(SeedObjects, f'{node}/seed')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(timeout_sec=2)
        self._thread.join(timeout=2)
        self.destroy_node()

    def _on_objects_with_info(self, message: TrackedObjectArray, info: Any) -> None:
        self._record_objects(message, info.get('source_timestamp') or time.time_ns())

    def _on_objects(self, message: TrackedObjectArray) -> None:
        self._record_objects(message, time.time_ns())

    def _record_objects(self, message: TrackedObjectArray, published_ns: int) -> None:
        objects = [object_of(item) for item in message.objects]
        with self._lock:
            recorded = self._recorded.setdefault(_nanoseconds(message.header.stamp), Recorded())
            recorded.objects = objects
            recorded.published_ns = published_ns

    def _on_labels(self, message: Image) -> None:
        labels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, : message.width]
        _, encoded = cv2.imencode('.png', labels)
        with self._lock:
            self._recorded.setdefault(_nanoseconds(message.header.stamp), Recorded()).labels_png = encoded

    @property
    def recorded(self) -> dict[int, Recorded]:
        """Results by stamp, ns, of the images with both messages."""
        with self._lock:
            complete = {s: r for s, r in self._recorded.items() if r.objects is not None and r.labels_png is not None}
        return dict(sorted(complete.items()))

    def wait_for(self, done: Callable[[], bool], seconds: float, check: Callable[[], None] = lambda: None) -> bool:
        """Wait until `done()`; returns False after a time limit. `check()` may raise an error."""
        end = time.monotonic() + seconds
        while not done():
            check()
            if time.monotonic() > end or not rclpy.ok():
                return False
            time.sleep(0.05)
        return True

    def seed(self, seeds: Sequence[DemoSeed], frame_id: str) -> tuple[list[int], list[int]]:
        """Seed objects in the newest image; returns their ids and labels.

        Raises:
            ProcessError: the service rejects the seeds or does not respond.
        """
        request = SeedObjects.Request(seeds=[_message_of(seed, frame_id) for seed in seeds])
        response = self._call(self._seed_client, request)
        if not response.success:
            raise ProcessError(f'the node rejects the seeds: {response.message}')
        return list(response.ids), list(response.labels)

    def start_camera(self) -> None:
        """Start the clip of a camera that holds its first frame."""
        client: Any = self.create_client(Trigger, '/scene_camera/start')
        self._call(client, Trigger.Request())

    def _call(self, client: Client, request: Any) -> Any:
        if not client.wait_for_service(ANSWER_S):
            raise ProcessError(f'no service {client.srv_name} within {ANSWER_S:g} s; see node.log and camera.log')
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(ANSWER_S):
            raise ProcessError(f'no response from {client.srv_name} within {ANSWER_S:g} s; see node.log and camera.log')
        return future.result()


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _message_of(seed: DemoSeed, frame_id: str) -> Seed:
    message = Seed(name=seed.name, kind=Seed.MASK)
    if seed.box:
        x, y, width, height = seed.box
        message.kind = Seed.BOX
        message.box = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    elif seed.mask is not None:
        mask = message.mask
        mask.header.frame_id = frame_id
        mask.height, mask.width = seed.mask.shape
        mask.encoding, mask.step = 'mono8', seed.mask.shape[1]
        mask.data = array.array('B', (seed.mask.astype(np.uint8) * 255).tobytes())
    return message
