# SPDX-License-Identifier: MIT
"""`~/seed_detections`: boxes of a detector as seeds. Needs vision_msgs.

Boxes start untracked objects or correct objects out of sight. Making a mask takes longer than a
frame, so a thread processes one message at a time, the newest. It rests after each message whose
boxes it tried. Messages replaced meanwhile are counted.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import RegionOfInterest
from vision_msgs.msg import Detection2DArray

from xmem_ros.conversions.images import stamp_ns
from xmem_ros.conversions.seeds import ObjectSeed
from xmem_ros.errors import SeedError, XMemError
from xmem_ros.msg import Seed
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import qos
from xmem_ros.node.best_available import BestAvailableSubscription
from xmem_ros.outside_text import for_log
from xmem_ros.stream.detection_policy import Box, Candidate, assign_ids, candidates_of, select_candidates
from xmem_ros.stream.frame import Fate
from xmem_ros.stream.worker import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from rclpy.node import Node

    from xmem_ros.parameters.groups import SeedDetectionParameters
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.seeding.seeder import Seeder
    from xmem_ros.stream.frame import Frame
    from xmem_ros.stream.session import TrackingSession
    from xmem_ros.stream.worker import Worker

    ApplySeeds = Callable[[TrackingSession, Frame, Sequence[Any], Sequence[ObjectSeed]], tuple[list[int], list[int]]]

_THROTTLED: dict[str, Any] = {'throttle_duration_sec': 5.0}
_QUEUE_DEPTH = 10  # of the middleware
_MIN_INTERVAL_S = 0.05  # between messages without untracked objects


class SeedDetections:
    """Subscribes to `~/seed_detections`.

    Arguments:
        node: the subscribing node.
        parameters: returns the current parameters.
        frame_of: returns the frame of a stamp [ns]; raises `SeedError` if it is not held.
        apply: seeds a frame with xmem_ros/Seed messages and their masks, in the worker's thread.
    """

    def __init__(
        self, node: Node, parameters: Callable[[], Parameters], frame_of: Callable[[int], Frame], apply: ApplySeeds
    ) -> None:
        self._node, self._parameters, self._frame_of, self._apply = node, parameters, frame_of, apply
        self._topic = node.resolve_topic_name('~/seed_detections')
        self._subscription = BestAvailableSubscription(node, self._on_message, raw=True)
        self._changed = threading.Condition()
        # The newest message, serialized: deserializing all messages of a flood is slow.
        self._message: bytes | None = None
        self._turn = 0  # counts calls of `open` and `stop`; a thread ends when its turn is over
        self._received = self._dropped = self._tried = self._started = self._corrected = self._without_room = 0

    def open(self, session: TrackingSession, worker: Worker) -> None:
        """Subscribe; seeds go to this session, in the thread of this worker."""
        self._turn, self._message = self._turn + 1, None
        arguments = session, worker, self._turn
        threading.Thread(target=self._run, args=arguments, name='xmem-detections', daemon=True).start()
        self._subscription.open(Detection2DArray, self._topic, qos.beside_images(_QUEUE_DEPTH))

    def watch(self) -> None:
        """Subscribe again if a publisher's QoS asks for it; call about once a second."""
        self._subscription.watch()

    def stop(self) -> None:
        """Unsubscribe; call after the worker has been stopped.

        The thread may still be making masks, which takes seconds. The stopped worker refuses them.
        """
        self._subscription.close()
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def diagnostics(self) -> dict[str, str]:
        """Return key → value of the node's status."""
        return {
            keys.DETECTION_MESSAGES: str(self._received),
            keys.DETECTION_MESSAGES_DROPPED: str(self._dropped),
            keys.DETECTION_BOXES_TRIED: str(self._tried),
            keys.OBJECTS_FROM_DETECTIONS: str(self._started),
            keys.OBJECTS_CORRECTED: str(self._corrected),
            keys.DETECTION_MESSAGES_WITHOUT_ROOM: str(self._without_room),
        }

    @property
    def _policy(self) -> SeedDetectionParameters:
        return self._parameters().seed_detections

    def _on_message(self, message: bytes) -> None:
        with self._changed:
            self._received += 1
            self._dropped += self._message is not None
            self._message = message
            self._changed.notify_all()

    def _run(self, session: TrackingSession, worker: Worker, turn: int) -> None:
        log, rest_until = self._node.get_logger(), 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._turn != turn, timeout=max(rest_until - time.monotonic(), 0))
                self._changed.wait_for(lambda: self._turn != turn or self._message is not None)
                if self._turn != turn:
                    return
                message, self._message = self._message, None
            if message is None:
                continue
            begun, tried = time.monotonic(), True
            try:
                tried = self._process(deserialize_message(message, Detection2DArray), session, worker, turn)
            except StoppedError:
                return
            except XMemError as error:
                log.warning(f'{self._topic}: dropped: {for_log(error)}', **_THROTTLED)
            except Exception:  # go on with the next message
                log.error(f'{self._topic}: dropped: {traceback.format_exc()}', **_THROTTLED)
            finally:
                ended = time.monotonic()
                # On a slow machine the work may exceed the period; limit it to half of the time.
                rest_until = max(begun + self._policy.period, 2 * ended - begun) if tried else ended
                rest_until = max(rest_until, begun + _MIN_INTERVAL_S)

    def _process(self, message: Any, session: TrackingSession, worker: Worker, turn: int) -> bool:
        """Seed from a message; return whether any of its boxes was tried."""
        policy = self._policy
        candidates = candidates_of(message, policy)
        if not candidates:
            return False
        frame = self._frame_of(stamp_ns(message.header.stamp))
        labels = frame.labels  # of the image's size; saves decoding the image
        size = labels.shape if labels is not None else session.image_of(frame.message).shape[:2]

        def room() -> int:
            return session.tracker.config.max_objects - len(session.tracker.objects)

        def lacks_room() -> bool:
            """Tell whether a candidate is left out because of max_objects."""
            known = session.known_boxes(frame)
            return room() <= 0 and bool(select_candidates(candidates, known, size, policy.max_iou, 1))

        def select(found: Sequence[Candidate]) -> list[tuple[Candidate, Box]]:
            unlocated = session.unlocated(frame, policy.reseed_within)
            known = session.known_boxes(frame)
            return select_candidates(found, known, size, policy.max_iou, policy.max_per_message, room(), unlocated)

        selected, full = worker.submit(lambda: (select(candidates), lacks_room())).result()
        if full:
            self._without_room += 1
            self._node.get_logger().warning(
                f'{self._topic}: starts no objects: there are {session.tracker.config.max_objects}, tracked or out of '
                'sight, as many as max_objects allows: remove some (~/remove), or raise max_objects',
                **_THROTTLED,
            )
        if not selected:
            return False
        masks = self._masks(session.seeder, session.image_of(frame.message), selected, turn)
        if not masks:
            return True

        def seed() -> list[int]:
            # Selected again: objects may have been started, or become visible, meanwhile.
            remaining = select(list(masks))
            unlocated = session.unlocated(frame, policy.reseed_within)
            names = [candidate.name for candidate, _ in remaining]
            compared = [i for i, name in (*unlocated.lost.items(), *unlocated.returned.items()) if name in names]
            likeness = session.likeness(frame, [masks[candidate] for candidate, _ in remaining], compared)
            assigned = assign_ids(remaining, unlocated, likeness, policy, room())
            applied = [(*pair, i) for pair, i in zip(remaining, assigned, strict=True) if i is not None]
            if not applied and frame.fate is not Fate.WAITING:
                return []
            messages = [_seed_message(candidate, box, object_id) for candidate, box, object_id in applied]
            seeds = [ObjectSeed(masks[candidate], candidate.name, object_id) for candidate, _, object_id in applied]
            ids, _ = self._apply(session, frame, messages, seeds)
            self._corrected += sum(object_id != 0 for *_, object_id in applied)
            self._started += sum(object_id == 0 for *_, object_id in applied)
            return ids

        ids = worker.submit(seed, frame).result()
        if ids:
            self._node.get_logger().info(f'seeded from detections: ids {", ".join(map(str, ids))}')
        return True

    def _masks(
        self, seeder: Seeder, image: np.ndarray, selected: Sequence[tuple[Candidate, Box]], turn: int
    ) -> dict[Candidate, np.ndarray]:
        """Segment the boxes; log and omit boxes without an object.

        Raises:
            StoppedError: `stop` was called.
        """
        masks = {}
        self._tried += len(selected)
        found = seeder.from_boxes(image, [box for _, box in selected])
        if self._turn != turn:
            raise StoppedError('the node is not active')
        for (candidate, _), mask in zip(selected, found, strict=True):
            if isinstance(mask, SeedError):
                name = for_log(candidate.name or 'a detection')
                self._node.get_logger().warning(
                    f'{self._topic}: {name} cannot be seeded: {for_log(mask)}', **_THROTTLED
                )
            else:
                masks[candidate] = mask
        return masks


def _seed_message(candidate: Candidate, box: Box, object_id: int) -> Any:
    x, y, width, height = box
    region = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    return Seed(id=object_id, kind=Seed.BOX, name=candidate.name, box=region)
