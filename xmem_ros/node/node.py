# SPDX-License-Identifier: MIT
"""The lifecycle node `xmem`: images and seeds in, masks and boxes out."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from xmem_ros.conversions import ros_cv_bridge
from xmem_ros.conversions.images import stamp_ns
from xmem_ros.errors import XMemError
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import diagnostics, qos, standard_messages
from xmem_ros.node.bond import ManagerBond
from xmem_ros.node.configuring import CancelledError, Configuring
from xmem_ros.node.diagnostics import DiagnosticArray, StreamStatistics
from xmem_ros.node.findings import Findings
from xmem_ros.node.health import worst
from xmem_ros.node.image_source import ImageSource
from xmem_ros.node.memory_keeper import MemoryKeeper
from xmem_ros.node.object_requests import ObjectRequests
from xmem_ros.node.parameter_node import ParameterNode
from xmem_ros.node.publishers import Publishers
from xmem_ros.node.rclpy_workarounds import guard_services
from xmem_ros.node.services import FLUSH_S, Pipeline, Services, format_stamp
from xmem_ros.node.vision_topics import VisionTopics
from xmem_ros.seeding.seeder import make_seeder
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.memory_files import memory_folder
from xmem_ros.stream.worker import Counts, Worker
from xmem_ros.weights.files import find_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor_msgs.msg import CompressedImage, Image

    from xmem_ros.stream.fair_lock import FairLock
    from xmem_ros.tracker.engine import Engines

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_THROTTLED: dict[str, Any] = {'throttle_duration_sec': 5.0}


class XMemNode(ParameterNode):
    """Tracks objects in the images of one camera.

    The transition configure loads the weights, and activate starts tracking. Deactivate keeps the
    objects; cleanup forgets them.

    Arguments:
        engines: returns the networks that the nodes of this process share; None: the node loads
            its own.
        device_lock: serialises the use of a shared device.
        options: keyword arguments of rclpy's node, such as `namespace`.

    Raises:
        ParameterError: parameters given at the start are not allowed.
    """

    def __init__(
        self,
        *,
        engines: Callable[[], Engines] | None = None,
        device_lock: FairLock | None = None,
        **options: Any,
    ) -> None:
        super().__init__('xmem', **options)
        self._engines, self._device_lock = engines, device_lock
        self.fault = ''  # why the last transition failed
        self._progress: Configuring | None = None  # while a configuration is in progress
        self._closed = self._finalized = self._was_configured = False
        self._pipeline: Pipeline | None = None
        self._last_worker: Worker | None = None  # keeps the counts while no worker runs
        self._statistics = StreamStatistics(self.get_clock())
        self._sessions = itertools.count(1)  # of ~/events
        self._reported = Counts()  # counts of the last diagnostics
        self._images = ImageSource(self, lambda: self.parameters, self._take_image)
        self._findings = Findings(
            pipeline=lambda: self._pipeline,
            parameters=lambda: self.parameters,
            images=self._images,
            statistics=self._statistics,
        )
        self._node_services = Services(  # `_services` is an attribute of rclpy's node
            self,
            pipeline=lambda: self._pipeline,
            inactive_reason=self._inactive_reason,
            image_topic=lambda: self._images.topic,
            statistics=self._statistics,
        )
        self._requests = ObjectRequests(self, self._node_services, lambda: self._pipeline, self._inactive_reason)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.diagnostics())
        # With use_sim_time, timers on the node's own clock stand still until /clock is published.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._bond = ManagerBond(self)
        self._timers_group = MutuallyExclusiveCallbackGroup()
        standard_messages.log_missing(self)
        guard_services(self, self._refused_transition)
        self._watch = self.create_timer(1.0, self._watch_subscriptions, self._timers_group, self._steady)
        self._report = self._make_report_timer()

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights; if that fails, log the reason."""
        before = set(self.publishers)
        with Configuring() as self._progress:
            self.configuring = True
            try:
                self._configure(self._progress)
            except Exception as error:
                if not self._progress.cancelled:
                    self._log_failure('configured', error)
                self._forget()
                for publisher in set(self.publishers) - before:  # created by the failed attempt
                    self.destroy_publisher(publisher)
                self._release_device()
                return FAILURE
            finally:
                self.configuring, self._progress = False, None
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and track."""
        try:
            self._activate()
        except Exception as error:
            self._log_failure('activated', error)
            self._stop()
            return FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop after the current frame; keep the objects."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the objects and release the device."""
        self._forget()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and forget."""
        self._forget()
        self._finalized = True
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and forget, so that the node can be configured again."""
        self._forget()
        return super().on_error(state)

    def close(self, patience_s: float | None = None) -> None:
        """Stop before the node is destroyed, within about `patience_s`; None: when it is done.

        A configuration in progress ends at its next step.
        """
        self._closed = True
        if (progress := self._progress) is not None:
            progress.cancel()
        self._stop(patience_s)
        if self._pipeline is not None:
            self._pipeline.publishers.stop(FLUSH_S if patience_s is None else patience_s)

    def destroy_node(self) -> None:
        """Destroy the node and its action, which rclpy leaves; it would stay in the graph."""
        self._requests.destroy()
        super().destroy_node()

    def _configure(self, progress: Configuring) -> None:
        begun, name = time.monotonic(), self.get_fully_qualified_name()
        parameters = self.parameters
        memory_folder(parameters.memory_folder)
        ros_cv_bridge.use_where_possible()
        find_weights(parameters.weights)
        progress.step('importing torch')  # takes seconds
        from xmem_ros.stream.session import TrackingSession
        from xmem_ros.stream.setup import make_tracker, memory_estimate, prepare_models, warm_up

        progress.step(f'loading the weights {parameters.weights}')
        tracker = make_tracker(parameters, self._engines() if self._engines is not None else None)
        progress.step('waiting for the device')
        with self._device_lock or contextlib.nullcontext():
            progress.step('preparing models')
            prepare_models(tracker, parameters)
            progress.step('running dummy frames')
            warm_up(tracker)
        progress.step(f'loading the seeder {parameters.seeder}')
        make_seeder(parameters.seeder)  # now, so that a wrong one is refused and the first box does not wait
        progress.step('creating topics')
        # Hashed now, so that the first call of ~/save_memory does not delay an image.
        fingerprint = tracker.fingerprint
        history = History(
            parameters.history,
            parameters.history_seconds,
            parameters.history_mb * 1e6,
            least=parameters.queue_depth if parameters.queue == 'all' else 1,  # these wait in the queue anyway
            held=parameters.held,
        )
        vision = VisionTopics(
            self, lambda: self.parameters, self._node_services.frame_of, self._node_services.apply_seeds
        )
        publishers = Publishers(
            self,
            self._statistics,
            object_topics=parameters.max_objects if parameters.publish_per_object else 0,
            quality=lambda: self.parameters.jpeg_quality,
            sessions=self._sessions,
            keep_all=parameters.queue == 'all',
            extras=[*vision.outputs, self._requests],
        )
        session = TrackingSession(tracker, lambda: self.parameters, history, publishers, self.get_logger())
        session.on_reset = publishers.events.reset
        keeper = None
        with contextlib.ExitStack() as undo:
            undo.callback(publishers.close)
            if parameters.load_on_start:
                loaded = publishers.events.loaded
                keeper = MemoryKeeper(name, lambda: self.parameters, session, self.get_logger(), loaded)
                undo.callback(keeper.close)
                if not self._was_configured:
                    progress.step(f'loading the memory file {parameters.load_on_start}')
                    keeper.load()
            progress.step('finishing')
            undo.pop_all()
        self._was_configured = True
        self._pipeline = Pipeline(session, history, publishers, vision, keeper)
        self.destroy_timer(self._report)
        self._report = self._make_report_timer()
        self.configured = True
        self.fault = ''
        self.get_logger().info(
            f'configured in {time.monotonic() - begun:.1f} s: weights {parameters.weights} on {tracker.device} '
            f'(SHA-256 {fingerprint[:12]}…), working size {tracker.config.size or "of the image"}, at most '
            f'{tracker.config.max_objects} objects; memory: {memory_estimate(tracker)}'
        )

    def _activate(self) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        if self._closed:
            raise CancelledError('the node is about to end')
        every = self.parameters.queue == 'all'
        pipeline.worker = self._last_worker = Worker(
            pipeline.session.track,
            depth=self.parameters.queue_depth if every else 1,
            keep_all=every and self.parameters.queue_overflow == 'wait',
            keep=pipeline.history.add,
            log=self.get_logger().error,
            before=self._counts(),
            device_lock=self._device_lock,
        )
        pipeline.worker.start()
        if pipeline.keeper is not None:
            pipeline.keeper.open(pipeline.worker)
        self._images.open()
        pipeline.vision.open(pipeline.session, pipeline.worker)
        if not self.parameters.autostart:
            self._bond.open()
        self.fault = ''
        self.get_logger().info(f'active: waiting for images on {self._images.topic}')

    def _stop(self, patience_s: float | None = None) -> None:
        pipeline = self._pipeline
        worker = pipeline.worker if pipeline is not None else None
        if pipeline is not None and worker is not None:
            pipeline.worker = None
            self._bond.close()
            # The worker stops first: an image callback may wait for room in its queue.
            idle = worker.stop(patience_s)
            if pipeline.keeper is not None:
                pipeline.keeper.stop(idle=idle, patience_s=patience_s or 0.0)
        self._images.close()
        if pipeline is not None and worker is not None:
            pipeline.publishers.flush(FLUSH_S if patience_s is None else patience_s / 2)
        self._requests.clear()
        if pipeline is not None:
            pipeline.vision.stop(patience_s)
            # After the next activation, a seed for the newest image must not get one from before.
            pipeline.history.clear()

    def _forget(self) -> None:
        self._stop()
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.publishers.close()
            if pipeline.keeper is not None:
                pipeline.keeper.close()
            del pipeline  # it holds the tracker, whose device memory is released below
        if self.configured:
            self._release_device()
        self._statistics.clear_objects()
        self.configured = False

    def _log_failure(self, transition: str, error: Exception) -> None:
        expected = isinstance(error, XMemError)
        self.fault = str(error) if expected else f'{type(error).__name__}: {error}'
        self.get_logger().error(f'the node cannot be {transition}: {self.fault}')
        if not expected:
            self.get_logger().error(traceback.format_exc())

    def _inactive_reason(self) -> str:
        name, progress = self.get_fully_qualified_name(), self._progress
        if progress is not None:
            return f'the node is still configuring ({progress.progress}): wait until it is active, then ask again'
        if self._finalized:
            return f'the node is finalized and cannot be used again: end its process and start another {name}'
        if not self.configured:
            reason = f' (the last attempt failed: {self.fault})' if self.fault else ''
            return (
                f'the node is unconfigured{reason}: take the transitions configure and activate '
                f'(ros2 lifecycle set {name} configure; ros2 lifecycle set {name} activate)'
            )
        return f'the node is inactive: take the transition activate (ros2 lifecycle set {name} activate)'

    def _refused_transition(self, transition: str) -> None:
        """Log why a request for a transition was refused, which rclpy does not."""
        state, name = self._state, self.get_fully_qualified_name()
        if self.fault and state in (keys.UNCONFIGURED, keys.INACTIVE):
            return  # logged by the transition that failed
        reason = f'the node is {state}'
        if self.parameters.autostart and state != keys.FINALIZED:
            reason += (
                f'. It starts itself, because autostart is true: if a lifecycle manager starts {name}, give the node '
                'autostart: false; otherwise leave the transitions to the node'
            )
        self.get_logger().error(f'the transition {transition} was refused: {reason}')

    @property
    def _state(self) -> str:
        if self._progress is not None:
            return keys.CONFIGURING
        if self._finalized:
            return keys.FINALIZED
        if not self.configured:
            return keys.UNCONFIGURED
        pipeline = self._pipeline
        return keys.ACTIVE if pipeline is not None and pipeline.worker is not None else keys.INACTIVE

    @staticmethod
    def _release_device() -> None:
        if 'torch' in sys.modules:
            from xmem_ros.stream.setup import release_device

            release_device()

    # --- images

    def _take_image(self, message: Image | CompressedImage) -> None:
        try:
            pipeline = self._pipeline
            worker = pipeline.worker if pipeline is not None else None
            if worker is None:
                return
            stamp = stamp_ns(message.header.stamp)
            if stamp < 0:
                self.get_logger().warning(
                    f"image dropped: its stamp {format_stamp(stamp)} is negative; correct the sender's clock",
                    **_THROTTLED,
                )
            worker.offer(Frame(message, stamp, valid=stamp >= 0))
        except Exception:  # an exception that leaves a callback ends the executor and the node
            self.get_logger().error(f'image dropped: {traceback.format_exc()}', **_THROTTLED)

    def _watch_subscriptions(self) -> None:
        self._images.watch()
        pipeline = self._pipeline
        if pipeline is not None:
            try:
                pipeline.vision.watch()
            except Exception:  # an exception that leaves a callback ends the executor and the node
                self.get_logger().error(f'subscriptions cannot be watched: {traceback.format_exc()}', **_THROTTLED)

    # --- diagnostics

    def _counts(self) -> Counts:
        """Counts since the node started; they never decrease."""
        return self._last_worker.counts if self._last_worker is not None else Counts()

    def _make_report_timer(self) -> Any:
        group = MutuallyExclusiveCallbackGroup()  # as in ImageSource
        return self.create_timer(self.parameters.diagnostics_period, self._diagnose, group, self._steady)

    def _diagnose(self) -> None:
        try:
            self._publish_diagnostics()
        except Exception:
            self.get_logger().error(f'diagnostics not published: {traceback.format_exc()}', **_THROTTLED)

    def _publish_diagnostics(self) -> None:
        pipeline, state, hardware = self._pipeline, self._state, ''
        before, counts = self._reported, self._counts()
        self._reported = counts
        values = {keys.STATE: state} | diagnostics.count_values(counts, lost=self._images.lost)
        values |= self._statistics.take()
        if (progress := self._progress) is not None:
            values[keys.PROGRESS] = progress.progress
        if pipeline is not None:
            tracker = pipeline.session.tracker
            values |= pipeline.vision.diagnostics()
            hardware = str(tracker.device)
            values[keys.MEMORY_BYTES] = str(tracker.memory_bytes)
            values[keys.EVENTS_BYTES] = str(pipeline.publishers.events.nbytes)
            values[keys.UNPUBLISHED] = str(pipeline.publishers.unpublished)
            for number, measure in enumerate(tracker.given_up, 1):
                values[keys.given_up(number)] = measure
            for store, elements in tracker.memory_elements.items():
                values[keys.positions(store)] = str(elements)
        if state == keys.ACTIVE:
            values[keys.IMAGE_TOPIC] = self._images.topic
            if self._images.silent_for > (self.parameters.no_image_warning_after or diagnostics.SILENT_S):
                values[keys.NO_IMAGE] = self._images.silence_report()
        finding = worst(self._findings.of(state, self.fault, self._progress, counts, before))
        stamp = self.get_clock().now().to_msg()
        name = keys.status_name(self.get_fully_qualified_name())
        self._diagnostics.publish(diagnostics.diagnostics_message(stamp, name, hardware, finding, values))
