# SPDX-License-Identifier: MIT
"""The demonstration's own ROS node: it seeds through the node's service and records the node's topics."""

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

from xmem_ros.child_process import DemoError
from xmem_ros.conversions.objects import object_of
from xmem_ros.msg import Seed, TrackedObjectArray
from xmem_ros.srv import SeedObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rclpy.client import Client

    from xmem_ros.demo.truth import DemoSeed
    from xmem_ros.objects import TrackedObject

DEPTH = 1000  # messages that may wait for us, so that none is lost while we write files
ANSWER_S = 60.0


@dataclass
class Recorded:
    """What the node said of one image."""

    published_ns: int = 0
    objects: list[TrackedObject] | None = None
    labels_png: np.ndarray | None = None

    def decode(self) -> np.ndarray:
        """Labels H×W uint8."""
        assert self.labels_png is not None
        image = cv2.imdecode(self.labels_png, cv2.IMREAD_UNCHANGED)
        assert image is not None
        return image


class Recorder(Node):
    """Records `~/objects` and `~/labels` of a node by the stamp of the image, in nanoseconds; a context manager."""

    def __init__(self, node: str = '/xmem') -> None:
        super().__init__('demo_recorder')
        self._lock = threading.Lock()
        self._recorded: dict[int, Recorded] = {}
        reliability = getattr(ReliabilityPolicy, 'BEST_AVAILABLE', ReliabilityPolicy.RELIABLE)
        qos = QoSProfile(depth=DEPTH, reliability=reliability)
        # Humble hands over the message alone.
        take = self._take_timed_objects if hasattr(rclpy.subscription, 'MessageInfo') else self._take_objects
        self.create_subscription(TrackedObjectArray, f'{node}/objects', take, qos)
        self.create_subscription(Image, f'{node}/labels', self._take_labels, qos)
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

    def _take_timed_objects(self, message: TrackedObjectArray, info: Any) -> None:
        self._record_objects(message, info.get('source_timestamp') or time.time_ns())

    def _take_objects(self, message: TrackedObjectArray) -> None:
        self._record_objects(message, time.time_ns())

    def _record_objects(self, message: TrackedObjectArray, published_ns: int) -> None:
        objects = [object_of(item) for item in message.objects]
        with self._lock:
            recorded = self._recorded.setdefault(_nanoseconds(message.header.stamp), Recorded())
            recorded.objects = objects
            recorded.published_ns = published_ns

    def _take_labels(self, message: Image) -> None:
        labels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, : message.width]
        _, encoded = cv2.imencode('.png', labels)
        with self._lock:
            self._recorded.setdefault(_nanoseconds(message.header.stamp), Recorded()).labels_png = encoded

    @property
    def recorded(self) -> dict[int, Recorded]:
        """Stamp in nanoseconds → what was said of that image; only images of which both messages are here."""
        with self._lock:
            whole = {s: r for s, r in self._recorded.items() if r.objects is not None and r.labels_png is not None}
        return dict(sorted(whole.items()))

    def wait_for(self, done: Callable[[], bool], seconds: float, check: Callable[[], None] = lambda: None) -> bool:
        """Return whether done() came true within so many seconds; check() is called meanwhile and may raise."""
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
            DemoError: the service refuses, with its own words, or does not answer.
        """
        request = SeedObjects.Request(seeds=[_message_of(seed, frame_id) for seed in seeds])
        response = self._call(self._seed_client, request)
        if not response.success:
            raise DemoError(f'the node refuses the seed: {response.message}')
        return list(response.ids), list(response.labels)

    def start_camera(self) -> None:
        """Have the camera play on from the frame that it holds."""
        client: Any = self.create_client(Trigger, '/scene_camera/start')
        self._call(client, Trigger.Request())

    def _call(self, client: Client, request: Any) -> Any:
        if not client.wait_for_service(ANSWER_S):
            raise DemoError(f'there is no service {client.srv_name}')
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(ANSWER_S):
            raise DemoError(f'service {client.srv_name} gave no answer within {ANSWER_S:g} s')
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
