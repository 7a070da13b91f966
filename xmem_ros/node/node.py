# SPDX-License-Identifier: MIT
"""The lifecycle node `xmem`: images and seeds in, masks and boxes out."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Time
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.conversions.images import stamp_ns
from xmem_ros.conversions.seeds import read_seeds
from xmem_ros.errors import (
    FrameError,
    NodeInactiveError,
    NoImageError,
    ParameterError,
    RequestError,
    StampNotHeldError,
    XMemError,
    error_code,
)
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import diagnostics, qos, standard_messages
from xmem_ros.node.diagnostics import DiagnosticArray, Figures
from xmem_ros.node.image_source import ImageSource
from xmem_ros.node.parameter_node import ParameterNode
from xmem_ros.node.publishers import Publishers
from xmem_ros.node.rclpy_workarounds import guard_services
from xmem_ros.node.vision_topics import VisionTopics
from xmem_ros.outside_text import for_log
from xmem_ros.srv import HoldImage, LoadMemory, RemoveObjects, ResetTracker, SaveMemory, SeedObjects
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import HOLD_S, History
from xmem_ros.stream.memory_files import memory_file, memory_folder
from xmem_ros.stream.worker import Counts, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sensor_msgs.msg import Image

    from xmem_ros.conversions.seeds import ObjectSeed
    from xmem_ros.stream.fair_lock import Turns
    from xmem_ros.stream.session import Tracking
    from xmem_ros.tracker import Tracker
    from xmem_ros.tracker.engine import Engines

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
SELDOM: dict[str, Any] = {'throttle_duration_sec': 5.0}


class XMemNode(ParameterNode):
    """Configure loads the weights, activate starts tracking; deactivate keeps the objects, cleanup forgets them.

    Arguments:
        engines: networks that nodes of this process share; None: this one has its own.
        turns: in which they use the device.
        options: of the node, such as `namespace`.

    Raises:
        ParameterError: parameters given at the start are unknown or not allowed.
    """

    def __init__(self, *, engines: Engines | None = None, turns: Turns | None = None, **options: Any) -> None:
        super().__init__('xmem', **options)
        self._engines, self._turns = engines, turns
        self.fault = ''  # why the last configuration failed
        self._tracking: Tracking | None = None
        self._worker: Worker | None = None
        self._counting: Worker | None = None  # the newest worker, running or not
        self._outputs: Publishers | None = None
        self._vision: VisionTopics | None = None
        self._history = History(1)
        self._figures = Figures(self.get_clock())
        self._reported = Counts()  # by the last diagnostics
        self._images = ImageSource(self, lambda: self.parameters, self._take_image)
        for kind, name, serve in (
            (SeedObjects, '~/seed', self._seed),
            (RemoveObjects, '~/remove', self._remove),
            (HoldImage, '~/hold', self._hold),
            (ResetTracker, '~/reset', self._reset),
            (SaveMemory, '~/save_memory', self._save),
            (LoadMemory, '~/load_memory', self._load),
        ):
            # groups of their own: GrabCut for one call must not keep another waiting
            self.create_service(kind, name, self._answer(serve), callback_group=MutuallyExclusiveCallbackGroup())
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.diagnostics())
        # Steady: with use_sim_time and no clock, timers of the node's own clock would stand still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers_group = MutuallyExclusiveCallbackGroup()
        standard_messages.say_missing(self)
        guard_services(self)
        self._watch = self.create_timer(1.0, self._images.watch, self._timers_group, self._steady)
        self._report = self._make_report_timer()

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights; fails where that is not possible, and says why."""
        before = set(self.publishers)
        try:
            self._configure()
        except Exception as error:
            self._refuse('configured', error)
            self._forget()
            for publisher in set(self.publishers) - before:  # of what was not whole yet
                self.destroy_publisher(publisher)
            self._release_device()
            return FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and track."""
        try:
            self._activate()
        except Exception as error:
            self._refuse('activated', error)
            self._stop()
            return FAILURE
        return super().on_activate(state)

    def _activate(self) -> None:
        assert self._tracking is not None
        every = self.parameters.queue == 'all'
        keep_all = every and self.parameters.queue_overflow == 'wait'
        depth = self.parameters.queue_depth if every else 1
        self._worker = self._counting = Worker(
            self._tracking.track,
            depth=depth,
            keep_all=keep_all,
            keep=self._history.add,
            log=self.get_logger().error,
            before=self._counts(),
            turns=self._turns,
        )
        self._worker.start()
        self._images.open()
        if self._vision is not None:
            self._vision.open(self._tracking, self._worker)
        self.fault = ''
        self.get_logger().info(f'active: waiting for images on {self._images.topic}')

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop after the frame in hand; the objects are kept."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the objects and let go of the device."""
        self._forget()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and forget."""
        self._forget()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and forget, so that the node can be configured again."""
        self._forget()
        return super().on_error(state)

    def _refuse(self, what: str, error: Exception) -> None:
        known = isinstance(error, XMemError)
        self.fault = str(error) if known else f'{type(error).__name__}: {error}'
        self.get_logger().error(f'cannot be {what}: {self.fault}')
        if not known:
            self.get_logger().error(traceback.format_exc())

    def close(self, patience_s: float | None = None) -> None:
        """Stop the worker before the node is destroyed; `Worker.stop` has `patience_s`."""
        self._stop(patience_s)

    def _configure(self) -> None:
        # it imports torch, which takes seconds
        from xmem_ros.stream.session import Tracking, make_tracker, prepare, warm_up

        begun = time.monotonic()
        memory_folder(self.parameters.memory_folder)
        tracker = make_tracker(self.parameters, self._engines)
        with self._turns or contextlib.nullcontext():
            prepare(tracker, self.parameters)
            warm_up(tracker)
        # hashed now: the first call of ~/save_memory is not to make an image wait
        fingerprint = tracker.fingerprint
        waiting = self.parameters.queue_depth if self.parameters.queue == 'all' else 1
        self._history = History(
            self.parameters.history,
            self.parameters.history_seconds,
            self.parameters.history_mb * 1e6,
            least=waiting,  # they are there anyway
            held=self.parameters.held,
        )
        self._vision = VisionTopics(self, lambda: self.parameters, self._frame_of, self._apply_seeds)
        self._outputs = Publishers(
            self,
            self._figures,
            per_object=self.parameters.publish_per_object,
            quality=lambda: self.parameters.jpeg_quality,
            extras=self._vision.outputs,
        )
        self._tracking = Tracking(tracker, lambda: self.parameters, self._history, self._outputs, self.get_logger())
        self.destroy_timer(self._report)
        self._report = self._make_report_timer()
        self.configured = True
        self.fault = ''
        self.get_logger().info(
            f'configured in {time.monotonic() - begun:.1f} s: weights {self.parameters.weights} on {tracker.device} '
            f'(SHA-256 {fingerprint[:12]}…), images scaled to {tracker.config.size or "their own size"}, at most '
            f'{tracker.config.max_objects} objects; memory: {_foretold(tracker)}'
        )

    def _stop(self, patience_s: float | None = None) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            # First, so that an image callback that waits for room returns.
            worker.stop(patience_s)
        self._images.close()
        if self._vision is not None:
            self._vision.stop()
        self._history.clear()  # a seed for the newest image must not find one from before the pause

    def _counts(self) -> Counts:
        """Since the node started; it never falls back."""
        return self._counting.counts if self._counting is not None else Counts()

    def _forget(self) -> None:
        self._stop()
        publishers, self._outputs, self._tracking, self._vision = self._outputs, None, None, None
        if publishers is not None:
            publishers.close()
        if self.configured:
            self._release_device()
        self._figures.forget_objects()
        self.configured = False

    @staticmethod
    def _release_device() -> None:
        if 'torch' in sys.modules:
            from xmem_ros.stream.session import release_device

            release_device()

    # --- images

    def _take_image(self, message: Image) -> None:
        try:
            worker = self._worker
            if worker is None:
                return
            stamp = stamp_ns(message.header.stamp)
            if stamp < 0:
                self.get_logger().warning(
                    f'image dropped: its stamp {_seconds(stamp)} is negative; correct the clock of its sender', **SELDOM
                )
            worker.offer(Frame(message, stamp, valid=stamp >= 0))
        except Exception:  # that left a callback would end the executor, and with it the node
            self.get_logger().error(f'image dropped: {traceback.format_exc()}', **SELDOM)

    # --- services

    def _answer(self, serve: Callable[[Any, Any, Tracking, Worker], None]) -> Callable[[Any, Any], Any]:
        """Every fault becomes a response; none a traceback at the caller."""

        def answer(request: Any, response: Any) -> Any:
            tracking, worker = self._tracking, self._worker
            try:
                if tracking is None or worker is None:
                    raise NodeInactiveError('no worker')
                serve(request, response, tracking, worker)
                response.success = True
                return response
            except NodeInactiveError as error:  # before the call, or while it waited
                response.error_code, response.message = error_code(error), self._inactive()
            except XMemError as error:
                response.error_code, response.message = error_code(error), str(error)
            except Exception as error:
                response.error_code = error_code(error)
                response.message = f'internal error: {type(error).__name__}: {error}; nothing was changed'
                self.get_logger().error(traceback.format_exc())
            response.success = False
            self.get_logger().warning(f'request refused: {for_log(response.message)}')
            return response

        return answer

    def _inactive(self) -> str:
        name = self.get_fully_qualified_name()
        if not self.configured:
            reason = f' (the last attempt failed: {self.fault})' if self.fault else ''
            return (
                f'the node is unconfigured{reason}: take the transitions configure and activate '
                f'(ros2 lifecycle set {name} configure; ros2 lifecycle set {name} activate)'
            )
        return f'the node is inactive: take the transition activate (ros2 lifecycle set {name} activate)'

    def _seed(self, request: Any, response: Any, tracking: Tracking, worker: Worker) -> None:
        frame = self._frame_of(stamp_ns(request.header.stamp))
        tracker = tracking.tracker

        def check(ids: list[int]) -> None:
            worker.submit(lambda: tracker.check_ids(ids)).result()

        seeds = read_seeds(request.seeds, rgb_of(frame.message), tracker.config.max_objects, check)
        ids, labels = worker.submit(lambda: self._apply_seeds(tracking, frame, request.seeds, seeds), frame).result()
        response.ids, response.labels, response.stamp = ids, labels, frame.message.header.stamp
        response.message = f'{_objects(len(ids))} seeded'
        self.get_logger().info(f'seeded on the image of {_seconds(frame.stamp_ns)}: ids {", ".join(map(str, ids))}')

    def _apply_seeds(
        self, tracking: Tracking, frame: Frame, messages: Sequence[Any], seeds: Sequence[ObjectSeed]
    ) -> tuple[list[int], list[int]]:
        """By the worker's thread: seed, and tell. Returns ids and labels in the order of the seeds."""
        publishers = self._outputs
        ids, labels = tracking.seed(frame, seeds)
        try:
            if publishers is not None and ids:
                publishers.publish_seeds(frame.message.header, messages, ids, labels)
        except Exception:  # the objects are tracked by now, whoever hears of it
            self.get_logger().error(f'the seeds cannot be published: {traceback.format_exc()}')
        return ids, labels

    def _hold(self, request: Any, response: Any, tracking: Tracking, worker: Worker) -> None:  # noqa: ARG002
        span = self._history.span_ns() or (0, 0)
        response.oldest, response.newest = map(_time, span)
        if not self.parameters.held:
            raise ParameterError('the parameter held is 0, so no image is held: set it to 1 or more')
        frame = self._frame_of(stamp_ns(request.header.stamp))
        if not self._history.hold(frame.stamp_ns):  # it has gone meanwhile
            raise self._not_held(frame.stamp_ns)
        response.stamp, response.duration.sec = frame.message.header.stamp, int(HOLD_S)
        response.message = f'the image of {_seconds(frame.stamp_ns)} is held for {HOLD_S:g} s'

    def _frame_of(self, stamp: int) -> Frame:
        if stamp < 0:
            raise StampNotHeldError(
                f'the stamp {_seconds(stamp)} is negative: give the stamp of an image, or zero for the newest'
            )
        frame = self._history.find(stamp) if stamp else self._history.newest()
        if frame is not None:
            return frame
        raise self._not_held(stamp)

    def _not_held(self, stamp: int) -> XMemError:
        span = self._history.span_ns()
        if span is None:
            return NoImageError(
                f'no image has arrived on {self._images.topic} yet: wait for {self.get_fully_qualified_name()}/labels, '
                'then ask again'
            )
        return StampNotHeldError(
            f'no image of stamp {_seconds(stamp)} is held, only some from {_seconds(span[0])} to '
            f'{_seconds(span[1])}: give the stamp of one of them, zero for the newest, or raise '
            'history, history_seconds and history_mb'
        )

    def _remove(self, request: Any, response: Any, tracking: Tracking, worker: Worker) -> None:
        ids = list(request.ids)
        if request.all and ids:
            raise RequestError('both ids and all given: name the objects, or set all and leave ids empty')
        if not request.all and not ids:
            raise RequestError('neither ids nor all given: name the objects to remove, or set all')
        response.removed = worker.submit(lambda: tracking.remove(None if request.all else ids)).result()
        response.message = f'{_objects(len(response.removed))} removed'
        self.get_logger().info(f'removed: ids {", ".join(map(str, response.removed))}')

    def _reset(self, request: Any, response: Any, tracking: Tracking, worker: Worker) -> None:  # noqa: ARG002
        response.removed = worker.submit(tracking.reset).result()
        self._figures.forget_objects()
        response.message = f'{_objects(len(response.removed))} forgotten; ids start again at 1'
        self.get_logger().info(f'reset: {response.message}')

    def _save(self, request: Any, response: Any, tracking: Tracking, worker: Worker) -> None:
        from xmem_ros.tracker import snapshot

        path = memory_file(self.parameters.memory_folder, request.name)
        saved = worker.submit(tracking.tracker.export_state).result()
        snapshot.write(saved, path)
        response.ids = [entry.id for entry in saved.table.entries]
        response.path, response.size = str(path), path.stat().st_size
        response.message = f'{_objects(len(response.ids))} saved to {path}'
        self.get_logger().info(response.message)

    def _load(self, request: Any, response: Any, tracking: Tracking, worker: Worker) -> None:
        from xmem_ros.tracker import snapshot

        path = memory_file(self.parameters.memory_folder, request.name)
        saved = snapshot.read(path, tracking.tracker.fingerprint)
        ids, labels = worker.submit(lambda: tracking.import_state(saved)).result()
        self._figures.forget_objects()
        response.path, response.ids, response.labels = str(path), ids, labels
        response.message = f'{_objects(len(ids))} loaded from {path}: ids {", ".join(map(str, ids)) or "none"}'
        self.get_logger().info(response.message)

    # --- diagnostics

    def _make_report_timer(self) -> Any:
        group = MutuallyExclusiveCallbackGroup()  # as in ImageSource
        return self.create_timer(self.parameters.diagnostics_period, self._diagnose, group, self._steady)

    def _diagnose(self) -> None:
        try:
            self._publish_diagnostics()
        except Exception:
            self.get_logger().error(f'no diagnostics: {traceback.format_exc()}', **SELDOM)

    def _publish_diagnostics(self) -> None:
        tracking, worker = self._tracking, self._worker
        level, summary, hardware = diagnostics.OK, 'inactive' if self.configured else 'unconfigured', ''
        before, counts = self._reported, self._counts()
        self._reported = counts
        values = diagnostics.count_values(counts, lost=self._images.lost)
        values |= self._figures.take()
        if (vision := self._vision) is not None:
            values |= vision.values()
        if self.fault:
            level, summary = diagnostics.WARN, f'{summary}: {self.fault}'
        if tracking is not None:
            hardware = str(tracking.tracker.device)
            values[keys.MEMORY_BYTES] = str(tracking.tracker.memory_bytes)
            for number, what in enumerate(tracking.tracker.given_up, 1):
                level = diagnostics.WARN
                values[keys.given_up(number)] = what
            for store, elements in tracking.tracker.memory_elements.items():
                values[keys.positions(store)] = str(elements)
        if worker is not None:
            silent = self._images.silent_for
            limit = self.parameters.no_image_warning_after
            values[keys.IMAGE_TOPIC] = self._images.topic
            if silent > (limit or diagnostics.SILENT_S):
                values[keys.NO_IMAGE] = self._images.silence()
            if worker.fault:
                level, summary = diagnostics.ERROR, f'tracking ended: {worker.fault}; deactivate and activate the node'
            elif limit and silent > limit:
                level, summary = diagnostics.WARN, f'no image on {self._images.topic} for {silent:.0f} s'
            elif counts.invalid > before.invalid and counts.tracked == before.tracked:
                unreadable = counts.invalid - before.invalid
                level, summary = diagnostics.WARN, f'no image can be read: {unreadable} invalid since the last report'
            elif tracking is not None and (given_up := tracking.tracker.given_up):
                summary = f'tracking with less, as memory ran out: {given_up[-1]}'
            else:
                summary = 'tracking'
        stamp = self.get_clock().now().to_msg()
        name = keys.status_name(self.get_fully_qualified_name())
        self._diagnostics.publish(diagnostics.diagnostics_message(stamp, name, hardware, level, summary, values))


def _foretold(tracker: Tracker) -> str:
    """Megabytes that memory will take, for images of the two usual shapes.

    Raises:
        FrameError: the budget is too small for either; with images as they come, nothing is known about them yet.
    """
    said, refused = [], []
    for shape, size in {'4:3': (480, 640), '16:9': (720, 1280)}.items():
        of = shape if tracker.config.size else f'{size[1]}×{size[0]} px'
        try:
            said.append(f'{tracker.memory_bytes_with(size) / 1e6:.0f} MB for images of {of}')
        except FrameError as error:
            said.append(f'the budget is too small for images of {of}')
            refused.append(error)
    if len(refused) == len(said) and tracker.config.size:
        raise refused[0]
    return ', '.join(said)


def _objects(count: int) -> str:
    return f'{count} object{"" if count == 1 else "s"}'


def _time(stamp: int) -> Time:
    seconds, rest = divmod(stamp, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def _seconds(stamp: int) -> str:
    sign, (seconds, rest) = '-' if stamp < 0 else '', divmod(abs(stamp), 1_000_000_000)
    return f'{sign}{seconds}.{rest:09d}'
