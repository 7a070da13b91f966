# SPDX-License-Identifier: MIT
"""`~/seed_detections`: boxes of a detector become seeds of what is not tracked, or out of sight. Needs vision_msgs.

GrabCut of a box takes longer than a frame. So one thread looks at one message at a time, the newest, and rests after
each whose boxes it tried; what comes meanwhile is replaced by what comes after it, and counted.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import RegionOfInterest
from vision_msgs.msg import Detection2DArray

from xmem_ros import seeding
from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.conversions.images import stamp_ns
from xmem_ros.conversions.seeds import ObjectSeed
from xmem_ros.errors import SeedError, XMemError
from xmem_ros.msg import Seed
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node.rclpy_workarounds import subscribe
from xmem_ros.outside_text import for_log
from xmem_ros.stream.detection_policy import Box, Candidate, candidates_of, choose, recognise
from xmem_ros.stream.frame import Fate
from xmem_ros.stream.worker import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from rclpy.node import Node

    from xmem_ros.parameters.table import Parameters, SeedDetectionParameters
    from xmem_ros.stream.frame import Frame
    from xmem_ros.stream.session import Tracking
    from xmem_ros.stream.worker import Worker

    Apply = Callable[[Tracking, Frame, Sequence[Any], Sequence[ObjectSeed]], tuple[list[int], list[int]]]

_SELDOM: dict[str, Any] = {'throttle_duration_sec': 5.0}
_WAITING = 10  # messages that the middleware keeps
_BREATH_S = 0.05  # between messages in which everything is known already


class SeedDetections:
    """Subscribes to `~/seed_detections`.

    Arguments:
        node: that subscribes.
        parameters: gives the parameters as they are now.
        frame_of: gives the frame of a stamp [ns]; raises `SeedError` where it is not held.
        apply: seeds a frame with xmem_ros/Seed messages and their masks; called by the worker's thread.
    """

    def __init__(
        self, node: Node, parameters: Callable[[], Parameters], frame_of: Callable[[int], Frame], apply: Apply
    ) -> None:
        self._node, self._parameters, self._frame_of, self._apply = node, parameters, frame_of, apply
        self._topic = node.resolve_topic_name('~/seed_detections')
        self._subscription: Any = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        # The newest that was not looked at yet, as it came: to turn every message of a flood into objects takes long.
        self._message: bytes | None = None
        self._stopping = False
        self._received = self._dropped = self._tried = self._seeded = self._again = self._without_room = 0

    def open(self, tracking: Tracking, worker: Worker) -> None:
        """Subscribe; seeds are for this tracking, in the thread of this worker."""
        self._stopping, self._message = False, None
        self._thread = threading.Thread(target=self._run, args=(tracking, worker), name='xmem-detections', daemon=True)
        self._thread.start()
        self._subscription = subscribe(self._node, Detection2DArray, self._topic, self._take, _WAITING, raw=True)

    def stop(self) -> None:
        """Unsubscribe, and finish the message in hand. To be called when the worker has been stopped."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def values(self) -> dict[str, str]:
        """For diagnostics."""
        return {
            keys.DETECTION_MESSAGES: str(self._received),
            keys.DETECTION_MESSAGES_DROPPED: str(self._dropped),
            keys.DETECTION_BOXES_TRIED: str(self._tried),
            keys.OBJECTS_FROM_DETECTIONS: str(self._seeded),
            keys.OBJECTS_CORRECTED: str(self._again),
            keys.DETECTION_MESSAGES_WITHOUT_ROOM: str(self._without_room),
        }

    @property
    def _policy(self) -> SeedDetectionParameters:
        return self._parameters().seed_detections

    def _take(self, message: bytes) -> None:
        with self._changed:
            self._received += 1
            self._dropped += self._message is not None
            self._message = message
            self._changed.notify_all()

    def _run(self, tracking: Tracking, worker: Worker) -> None:
        log, rest_until = self._node.get_logger(), 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=max(rest_until - time.monotonic(), 0))
                self._changed.wait_for(lambda: self._stopping or self._message is not None)
                if self._stopping:
                    return
                message, self._message = self._message, None
            if message is None:
                continue
            begun, tried = time.monotonic(), True
            try:
                tried = self._look_at(deserialize_message(message, Detection2DArray), tracking, worker)
            except StoppedError:
                return
            except XMemError as error:
                log.warning(f'{self._topic}: dropped: {for_log(error)}', **_SELDOM)
            except Exception:  # the next message is to be looked at all the same
                log.error(f'{self._topic}: dropped: {traceback.format_exc()}', **_SELDOM)
            finally:
                ended = time.monotonic()
                # on a slow machine the work may take longer than the period: at most half of the time is for it
                rest_until = max(begun + self._policy.period, 2 * ended - begun) if tried else ended
                rest_until = max(rest_until, begun + _BREATH_S)

    def _look_at(self, message: Any, tracking: Tracking, worker: Worker) -> bool:
        """Returns whether boxes of it were tried."""
        policy = self._policy
        candidates = candidates_of(message, policy)
        if not candidates:
            return False
        frame = self._frame_of(stamp_ns(message.header.stamp))
        labels = frame.labels  # as large as the image, which may have to be decoded
        size = labels.shape if labels is not None else rgb_of(frame.message).shape[:2]

        def room() -> int:
            return tracking.tracker.config.max_objects - len(tracking.tracker.objects)

        def homeless() -> bool:
            """Whether something is left out because there can be no more objects."""
            known = tracking.boxes_beside(frame)
            return room() <= 0 and bool(choose(candidates, known, size, policy.max_iou, 1))

        def still_unknown(found: Sequence[Candidate]) -> list[tuple[Candidate, Box]]:
            unplaced = tracking.unplaced(frame, policy.reseed_within)
            known = tracking.boxes_beside(frame)
            return choose(found, known, size, policy.max_iou, policy.max_per_message, room(), unplaced)

        chosen, full = worker.submit(lambda: (still_unknown(candidates), homeless())).result()
        if full:
            self._without_room += 1
            self._node.get_logger().warning(
                f'{self._topic}: begins no objects: {tracking.tracker.config.max_objects} are tracked, or out of '
                'sight, and there can be no more: remove some (~/remove), or raise max_objects',
                **_SELDOM,
            )
        if not chosen:
            return False
        masks = self._masks(rgb_of(frame.message), chosen)
        if not masks:
            return True

        def seed() -> list[int]:
            # what others began meanwhile, or what came back into view, is known by now
            fresh = still_unknown(list(masks))
            unplaced = tracking.unplaced(frame, policy.reseed_within)
            names = [candidate.name for candidate, _ in fresh]
            asked = [i for i, name in (*unplaced.lost.items(), *unplaced.back.items()) if name in names]
            alike = tracking.likeness(frame, [masks[candidate] for candidate, _ in fresh], asked)
            which = recognise(fresh, unplaced, alike, policy, room())
            wanted = [(*pair, i) for pair, i in zip(fresh, which, strict=True) if i is not None]
            if not wanted and frame.fate is not Fate.WAITING:
                return []
            messages = [_seed_message(candidate, box, object_id) for candidate, box, object_id in wanted]
            seeds = [ObjectSeed(masks[candidate], candidate.name, object_id) for candidate, _, object_id in wanted]
            ids, _ = self._apply(tracking, frame, messages, seeds)
            self._again += sum(object_id != 0 for *_, object_id in wanted)
            self._seeded += sum(object_id == 0 for *_, object_id in wanted)
            return ids

        ids = worker.submit(seed, frame).result()
        if ids:
            self._node.get_logger().info(f'seeded from detections: ids {", ".join(map(str, ids))}')
        return True

    def _masks(self, image: np.ndarray, chosen: Sequence[tuple[Candidate, Box]]) -> dict[Candidate, np.ndarray]:
        """GrabCut; without those in which nothing stands out."""
        masks = {}
        for candidate, box in chosen:
            self._tried += 1
            try:
                masks[candidate] = seeding.mask_from_box(image, box)
            except SeedError as error:
                what = for_log(candidate.name or 'a detection')
                self._node.get_logger().warning(f'{self._topic}: {what} cannot be seeded: {for_log(error)}', **_SELDOM)
        return masks


def _seed_message(candidate: Candidate, box: Box, object_id: int) -> Any:
    x, y, width, height = box
    region = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    return Seed(id=object_id, kind=Seed.BOX, name=candidate.name, box=region)
