# SPDX-License-Identifier: MIT
"""Services of the node: seed, preview a seed, remove, hold, reset, save and load memory."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import Image

from xmem_ros import atomic
from xmem_ros.conversions.images import image_from_array, stamp_ns
from xmem_ros.conversions.seeds import read_candidates, read_seeds, replayable
from xmem_ros.errors import (
    NodeInactiveError,
    NoImageError,
    ParameterError,
    RequestError,
    StampNotHeldError,
    XMemError,
    error_code,
)
from xmem_ros.outside_text import for_log
from xmem_ros.srv import HoldImage, LoadMemory, PreviewSeed, RemoveObjects, ResetTracker, SaveMemory, SeedObjects
from xmem_ros.stream.history import HOLD_S
from xmem_ros.stream.memory_files import memory_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xmem_ros.conversions.seeds import ObjectSeed
    from xmem_ros.node.diagnostics import StreamStatistics
    from xmem_ros.node.memory_keeper import MemoryKeeper
    from xmem_ros.node.parameter_node import ParameterNode
    from xmem_ros.node.publishers import Publishers
    from xmem_ros.node.vision_topics import VisionTopics
    from xmem_ros.stream.frame import Frame
    from xmem_ros.stream.history import History
    from xmem_ros.stream.session import TrackingSession
    from xmem_ros.stream.worker import Worker

FLUSH_S = 1.0  # longest wait until results are published


@dataclass
class Pipeline:
    """Parts of a configured node."""

    session: TrackingSession
    history: History
    publishers: Publishers
    vision: VisionTopics
    keeper: MemoryKeeper | None = None  # only with load_on_start
    worker: Worker | None = None  # only while the node is active


class Services:
    """Creates the services and answers their requests.

    Arguments:
        node: the node that serves.
        pipeline: returns the parts of the node; None while it is unconfigured.
        inactive_reason: returns why the node is not active, and what to do.
        image_topic: returns the resolved topic of the images.
        statistics: reset together with the objects.
    """

    def __init__(
        self,
        node: ParameterNode,
        *,
        pipeline: Callable[[], Pipeline | None],
        inactive_reason: Callable[[], str],
        image_topic: Callable[[], str],
        statistics: StreamStatistics,
    ) -> None:
        self._node, self._pipeline, self._inactive_reason = node, pipeline, inactive_reason
        self._image_topic, self._statistics = image_topic, statistics
        for kind, name, handler in (
            (SeedObjects, '~/seed', self._seed),
            (PreviewSeed, '~/preview_seed', self._preview),
            (RemoveObjects, '~/remove', self._remove),
            (HoldImage, '~/hold', self._hold),
            (ResetTracker, '~/reset', self._reset),
            (SaveMemory, '~/save_memory', self._save),
            (LoadMemory, '~/load_memory', self._load),
        ):
            self.serve(kind, name, handler)

    def serve(self, kind: type, name: str, handler: Callable[[Any, Any, Pipeline, Worker], None]) -> None:
        """Create a service; every error of its handler becomes a response."""
        # One group for each service: the seeder in `~/seed` must not keep the others waiting.
        self._node.create_service(kind, name, self._guarded(handler), callback_group=MutuallyExclusiveCallbackGroup())

    def frame_of(self, stamp: int) -> Frame:
        """Find a kept frame by its stamp [ns]; 0 means the newest.

        Raises:
            NodeInactiveError, NoImageError, StampNotHeldError.
        """
        pipeline = self._pipeline()
        if pipeline is None:
            raise NodeInactiveError(self._inactive_reason())
        if stamp < 0:
            raise StampNotHeldError(
                f'the stamp {format_stamp(stamp)} is negative: give the stamp of an image, or zero for the newest'
            )
        frame = pipeline.history.find(stamp) if stamp else pipeline.history.newest()
        if frame is None:
            raise self._not_held(pipeline.history, stamp)
        return frame

    def apply_seeds(
        self, session: TrackingSession, frame: Frame, messages: Sequence[Any], seeds: Sequence[ObjectSeed]
    ) -> tuple[list[int], list[int]]:
        """Seed a frame and publish the event; called in the worker's thread.

        Returns:
            Ids and labels, in the order of the seeds.
        """
        pipeline = self._pipeline()
        ids, labels = session.seed(frame, seeds)
        if pipeline is not None and ids:
            pipeline.publishers.events.seeded(frame.message.header, messages, ids, labels)
        return ids, labels

    def _guarded(self, handler: Callable[[Any, Any, Pipeline, Worker], None]) -> Callable[[Any, Any], Any]:
        """Wrap a handler so that every error becomes a response."""

        def answer(request: Any, response: Any) -> Any:
            pipeline = self._pipeline()
            worker = pipeline.worker if pipeline is not None else None
            try:
                if pipeline is None or worker is None:
                    raise NodeInactiveError('no worker')
                handler(request, response, pipeline, worker)
                # Clients take results that arrive after the response for results after the change.
                pipeline.publishers.flush(FLUSH_S)
                response.success = True
                return response
            except NodeInactiveError as error:  # inactive before the call, or deactivated during it
                response.error_code, response.message = error_code(error), self._inactive_reason()
            except XMemError as error:
                response.error_code, response.message = error_code(error), str(error)
            except Exception as error:
                response.error_code = error_code(error)
                response.message = f'internal error: {type(error).__name__}: {error}; nothing was changed'
                self._node.get_logger().error(traceback.format_exc())
            response.success = False
            self._node.get_logger().warning(f'request refused: {for_log(response.message)}')
            return response

        return answer

    def _seed(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:
        frame, session = self.frame_of(stamp_ns(request.header.stamp)), pipeline.session
        tracker = session.tracker
        notes: list[str] = []

        def check(ids: list[int]) -> None:
            worker.submit(lambda: tracker.check_ids(ids)).result()

        seeds = read_seeds(
            request.seeds,
            session.image_of(frame.message),
            tracker.config.max_objects,
            lambda: session.seeder,
            check,
            notes.append,
            mask_of=lambda object_id: session.mask_of(frame, object_id),
        )
        messages = replayable(request.seeds, seeds)
        ids, labels = worker.submit(lambda: self.apply_seeds(session, frame, messages, seeds), frame).result()
        response.ids, response.labels, response.stamp = ids, labels, frame.message.header.stamp
        response.message = '; '.join([f'{_count(ids)} seeded', *notes])
        self._log(f'seeded in the image of {format_stamp(frame.stamp_ns)}: ids {", ".join(map(str, ids))}')
        for note in notes:
            self._log(note)

    def _preview(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:
        worker.check()  # what is previewed could not be seeded
        frame, session = self.frame_of(stamp_ns(request.header.stamp)), pipeline.session
        candidates = read_candidates(
            request.seed,
            session.image_of(frame.message),
            lambda: session.seeder,
            session.tracker.check_ids,  # in this thread: a person must not wait for a step; ~/seed checks again
            mask_of=lambda object_id: session.mask_of(frame, object_id),
        )
        for candidate in candidates:
            mask = image_from_array(candidate.mask.view(np.uint8) * np.uint8(255), 'mono8', Image)
            mask.header = frame.message.header
            response.masks.append(mask)
            response.qualities.append(candidate.quality)
        response.stamp = frame.message.header.stamp
        response.message = f'{len(candidates)} mask{"" if len(candidates) == 1 else "s"} found'

    def _hold(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:  # noqa: ARG002
        history = pipeline.history
        response.oldest, response.newest = map(_time, history.span_ns() or (0, 0))
        if not self._node.parameters.held:
            raise ParameterError('the parameter held is 0, so images cannot be held: set it to 1 or more')
        frame = self.frame_of(stamp_ns(request.header.stamp))
        if not history.hold(frame.stamp_ns):  # it left the history meanwhile
            raise self._not_held(history, frame.stamp_ns)
        response.stamp, response.duration.sec = frame.message.header.stamp, int(HOLD_S)
        response.message = f'the image of {format_stamp(frame.stamp_ns)} is held for {HOLD_S:g} s'

    def _remove(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:
        ids = list(request.ids)
        if request.all and ids:
            raise RequestError('the request gives ids and also sets all: use only one of them')
        if not request.all and not ids:
            raise RequestError('the request gives no ids and does not set all: give the ids to remove, or set all')

        def remove() -> list[int]:
            removed = pipeline.session.remove(None if request.all else ids)
            pipeline.publishers.events.removed(removed)
            return removed

        response.removed = worker.submit(remove).result()
        response.message = f'{_count(response.removed)} removed'
        self._log(f'removed: ids {", ".join(map(str, response.removed))}')

    def _reset(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:  # noqa: ARG002
        response.removed = worker.submit(pipeline.session.reset).result()
        pipeline.publishers.flush(FLUSH_S)  # results from before have states, too
        self._statistics.clear_objects()
        response.message = f'{_count(response.removed)} forgotten; ids start again at 1'
        self._log(f'reset: {response.message}')

    def _save(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:
        from xmem_ros.tracker import snapshot

        path = memory_file(self._node.parameters.memory_folder, request.name)
        saved = worker.submit(pipeline.session.tracker.export_state).result()
        snapshot.write(saved, path)
        response.ids = [entry.id for entry in saved.table.entries]
        response.path, response.size = str(path), path.stat().st_size
        response.message = f'{_count(response.ids)} saved to {path}'
        self._log(response.message)

    def _load(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:
        from xmem_ros.tracker import snapshot

        session = pipeline.session
        path = memory_file(self._node.parameters.memory_folder, request.name)
        saved = snapshot.read(path, session.tracker.fingerprint)
        digest = atomic.sha256_of(path)

        def load() -> tuple[list[int], list[int]]:
            loaded = session.import_state(saved)
            pipeline.publishers.events.loaded(path.name, digest, *loaded)
            return loaded

        ids, labels = worker.submit(load).result()
        pipeline.publishers.flush(FLUSH_S)
        self._statistics.clear_objects()
        response.path, response.ids, response.labels = str(path), ids, labels
        response.message = f'{_count(ids)} loaded from {path}: ids {", ".join(map(str, ids)) or "none"}'
        self._log(response.message)

    def _not_held(self, history: History, stamp: int) -> XMemError:
        span = history.span_ns()
        if span is None:
            return NoImageError(
                f'no image has arrived on {self._image_topic()} yet: wait for '
                f'{self._node.get_fully_qualified_name()}/labels, then ask again'
            )
        return StampNotHeldError(
            f'no image with stamp {format_stamp(stamp)} is held; held images have stamps from '
            f'{format_stamp(span[0])} to {format_stamp(span[1])}: give the stamp of one of them, zero for the newest, '
            'or increase the parameters history, history_seconds and history_mb'
        )

    def _log(self, text: str) -> None:
        self._node.get_logger().info(text)


def format_stamp(stamp: int) -> str:
    """Write a stamp [ns] in seconds."""
    sign, (seconds, rest) = '-' if stamp < 0 else '', divmod(abs(stamp), 1_000_000_000)
    return f'{sign}{seconds}.{rest:09d}'


def _count(objects: Sequence[int]) -> str:
    return f'{len(objects)} object{"" if len(objects) == 1 else "s"}'


def _time(stamp: int) -> Time:
    seconds, rest = divmod(stamp, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)
