# SPDX-License-Identifier: MIT
"""The action `~/wait_visible`.

A goal is decided by the results of frames and by one thread, which lives while goals wait. It is
executed once it is decided. A waiting coroutine would make rclpy's executor poll without a pause,
and a waiting callback would keep one of its threads.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from std_msgs.msg import Header

from xmem_ros.action import WaitVisible
from xmem_ros.errors import NodeInactiveError, NotVisibleError, RequestError, XMemError, error_code
from xmem_ros.node import wanted_object
from xmem_ros.node.object_messages import message_of
from xmem_ros.objects import ObjectState

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmem_ros.node.depth_source import Result
    from xmem_ros.node.parameter_node import ParameterNode
    from xmem_ros.objects import TrackedObject

MAX_GOALS = 64  # that wait; more are rejected
_TICK_S = 0.05  # between looks at cancellations and time-outs


@dataclass(eq=False)
class _Goal:
    handle: Any
    deadline: float  # time.monotonic
    header: Any = field(default_factory=Header)  # of the last image that was looked at
    seen: TrackedObject | None = None  # in that image
    error: Exception | None = None
    decided: bool = False


class WaitVisibleServer:
    """Serves the action.

    Arguments:
        node: the serving node.
        newest: returns the newest result, or None.
        known: returns the tracked objects; None while the node is not active.
        inactive_reason: returns why the node is not active, and what to do.
    """

    def __init__(
        self,
        node: ParameterNode,
        newest: Callable[[], Result | None],
        known: Callable[[], list[TrackedObject] | None],
        inactive_reason: Callable[[], str],
    ) -> None:
        self._node, self._newest, self._known, self._inactive_reason = node, newest, known, inactive_reason
        self._goals: dict[bytes, _Goal] = {}
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._server = ActionServer(
            node,
            WaitVisible,
            '~/wait_visible',
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def destroy(self) -> None:
        """Destroy the action; call before the node is destroyed, which leaves it."""
        self._server.destroy()

    def look(self, result: Result) -> None:
        """Decide the goals by the result of a frame, and publish feedback."""
        for goal in self._waiting():
            self._look(goal, result)

    def keep(self, ids: set[int]) -> None:
        """Abort the goals for ids that are not among these."""
        for goal in self._waiting():
            wanted = goal.handle.request
            if wanted.id and wanted.id not in ids:
                self._decide(goal, wanted_object.unknown(wanted, self._known() or []))

    def abort_all(self) -> None:
        """Abort all goals, since the node is not active any more."""
        for goal in self._waiting():
            self._decide(goal, NodeInactiveError('the node was deactivated'))

    def _on_goal(self, _: Any) -> GoalResponse:
        with self._lock:
            return GoalResponse.ACCEPT if len(self._goals) < MAX_GOALS else GoalResponse.REJECT

    def _on_accepted(self, handle: Any) -> None:
        wanted = handle.request
        timeout = wanted.timeout.sec + wanted.timeout.nanosec / 1e9
        goal = _Goal(handle, time.monotonic() + timeout if timeout > 0 else float('inf'))
        with self._lock:
            self._goals[bytes(handle.goal_id.uuid)] = goal
        try:
            wanted_object.check(wanted)
            if not 0 <= wanted.min_score <= 1:
                raise RequestError(f'min_score is {wanted.min_score:g}; allowed: 0 to 1')
            known = self._known()
            if known is None:
                raise NodeInactiveError(self._inactive_reason())
            if wanted.id and not wanted_object.all_of(wanted, known):
                raise wanted_object.unknown(wanted, known)
        except XMemError as error:
            self._decide(goal, error)
            return
        newest = self._newest()
        if newest is not None:
            self._look(goal, newest)
        with self._lock:
            if self._goals and self._thread is None:
                self._thread = threading.Thread(target=self._run, name='xmem-goals', daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._goals or not self._node.context.ok():
                    self._thread = None
                    return
            for goal in self._waiting():
                if goal.handle.is_cancel_requested:
                    self._decide(goal)
                elif time.monotonic() >= goal.deadline:
                    self._decide(goal, self._timed_out(goal))
            time.sleep(_TICK_S)

    def _timed_out(self, goal: _Goal) -> NotVisibleError:
        item = goal.seen
        if item is None:
            return NotVisibleError('the time-out was reached: no image with the object was tracked')
        return NotVisibleError(
            f'the time-out was reached: object {item.id} is {item.state.name} with a score of {item.score:.2f}'
        )

    def _waiting(self) -> list[_Goal]:
        with self._lock:
            return [goal for goal in self._goals.values() if not goal.decided]

    def _look(self, goal: _Goal, result: Result) -> None:
        wanted = goal.handle.request
        item = wanted_object.best_of(wanted, result.objects)
        goal.header, goal.seen = result.header, item
        score = wanted.min_score or self._node.parameters.min_score
        # With report_unsure an object that is not visible may have a box.
        if item is not None and item.state in (ObjectState.NEW, ObjectState.TRACKED) and item.score >= score:
            self._decide(goal)
            return
        feedback = WaitVisible.Feedback(header=result.header, known=item is not None)
        if item is not None:
            feedback.object = message_of(item)
        try:
            goal.handle.publish_feedback(feedback)
        except Exception:
            if self._node.context.ok():
                raise

    def _decide(self, goal: _Goal, error: Exception | None = None) -> None:
        with self._lock:
            if goal.decided:
                return
            goal.decided, goal.error = True, error
        try:
            goal.handle.execute()
        except Exception:  # as when the process is shutting down
            if self._node.context.ok():
                self._node.get_logger().error(f'a goal was not answered: {traceback.format_exc()}')

    def _execute(self, handle: Any) -> WaitVisible.Result:
        """End a goal that was decided."""
        with self._lock:
            goal = self._goals.pop(bytes(handle.goal_id.uuid))
        result = WaitVisible.Result(header=goal.header)
        if goal.seen is not None:
            result.object = message_of(goal.seen)
        if goal.error is not None:
            result.error_code, result.message = error_code(goal.error), str(goal.error)
            # A cancellation that came meanwhile allows no other end.
            (handle.canceled if handle.is_cancel_requested else handle.abort)()
        elif handle.is_cancel_requested:
            result.message = 'the goal was cancelled'
            handle.canceled()
        else:
            assert goal.seen is not None
            result.success, result.message = True, f'object {goal.seen.id} is visible'
            handle.succeed()
        return result
