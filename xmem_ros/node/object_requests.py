# SPDX-License-Identifier: MIT
"""Requests for one object: the service `~/get_mask` and the action `~/wait_visible`."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Vector3
from sensor_msgs.msg import Image

from xmem_ros.conversions.images import image_from_array, stamp_ns
from xmem_ros.errors import FrameError, NoImageError, NotVisibleError, RequestError
from xmem_ros.node import wanted_object
from xmem_ros.node.depth_source import Result
from xmem_ros.node.object_clouds import object_cloud
from xmem_ros.node.object_messages import message_of
from xmem_ros.node.placed_objects import placed_objects
from xmem_ros.node.wait_visible import WaitVisibleServer
from xmem_ros.srv import GetMask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xmem_ros.node.depth_source import Measurement
    from xmem_ros.node.parameter_node import ParameterNode
    from xmem_ros.node.services import Pipeline, Services
    from xmem_ros.objects import TrackedObject
    from xmem_ros.stream.worker import Worker
    from xmem_ros.tracker import StepResult


class ObjectRequests:
    """Answers from the newest result; one of the extra publishers of each frame.

    Arguments:
        node: the serving node.
        services: creates the service.
        pipeline: returns the parts of the node; None while it is unconfigured.
        inactive_reason: returns why the node is not active, and what to do.
    """

    def __init__(
        self,
        node: ParameterNode,
        services: Services,
        pipeline: Callable[[], Pipeline | None],
        inactive_reason: Callable[[], str],
    ) -> None:
        self._node, self._pipeline = node, pipeline
        self._lock = threading.Lock()
        self._newest: Result | None = None
        self._waiting = WaitVisibleServer(node, lambda: self._newest, self._known, inactive_reason)
        services.serve(GetMask, '~/get_mask', self._get_mask)

    def publish(self, header: Any, result: StepResult) -> None:
        """Take over the result of a frame, unless the node has been deactivated meanwhile."""
        if self._known() is None:
            return
        newest = Result(header, result.labels, result.objects)
        with self._lock:
            self._newest = newest
        self._waiting.look(newest)

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """Leave removed objects out of the newest result, and abort the goals for them."""
        ids = {item.id for item in objects}
        with self._lock:
            if self._newest is not None:
                left = [item for item in self._newest.objects if item.id in ids]
                self._newest = dataclasses.replace(self._newest, objects=left)
        self._waiting.keep(ids)

    def clear(self) -> None:
        """Forget the result and abort the goals; call when the node is deactivated."""
        with self._lock:
            self._newest = None
        self._waiting.abort_all()

    def close(self) -> None:
        """Do the same; service and action stay, and refuse requests."""
        self.clear()

    def destroy(self) -> None:
        """Destroy the action; call before the node is destroyed, which leaves it."""
        self._waiting.destroy()

    def _known(self) -> list[TrackedObject] | None:
        """Return the objects that are tracked; None while the node is not active."""
        pipeline = self._pipeline()
        return pipeline.session.tracker.objects if pipeline is not None and pipeline.worker is not None else None

    def _get_mask(self, request: Any, response: Any, pipeline: Pipeline, worker: Worker) -> None:
        worker.check()
        wanted_object.check(request)
        tracked = pipeline.session.tracker.objects
        known = wanted_object.all_of(request, tracked)
        if not known:
            raise wanted_object.unknown(request, tracked)
        result, measurement, note = self._result(request.target_frame, pipeline)
        ids = {item.id for item in known}  # others were removed after that image
        item = wanted_object.best_of(request, [item for item in result.objects if item.id in ids])
        if item is None:
            raise NotVisibleError(f'object {known[0].id} was seeded after the newest tracked image: ask again')
        if item.box is None:
            raise NotVisibleError(
                f'object {item.id} is not visible in the newest image ({item.state.name}): wait for it '
                '(action ~/wait_visible), or correct it with a seed'
            )
        response.header, response.object = result.header, message_of(item)
        inside = np.where(result.labels == item.label, np.uint8(255), np.uint8(0))
        response.mask = image_from_array(inside, 'mono8', Image)
        response.mask.header = result.header
        frame = pipeline.history.find(stamp_ns(result.header.stamp))
        if frame is not None:
            x, y, width, height = item.box
            crop = pipeline.session.image_of(frame.message)[y : y + height, x : x + width]
            response.image = image_from_array(np.ascontiguousarray(crop), 'rgb8', Image)
            response.image.header = result.header
        if measurement is not None:
            note = self._place(response, item, measurement)
        response.message = f'object {item.id} is visible{note}'

    def _result(self, target: str, pipeline: Pipeline) -> tuple[Result, Measurement | None, str]:
        """Return the newest result, with depth if there is depth, and a note if there is none."""
        depth = pipeline.vision.depth
        if target and depth is None:
            raise RequestError(
                f'the frame {target!r} was asked for, and nothing is located without depth: set depth.enabled, or '
                'leave target_frame empty'
            )
        if depth is not None:
            try:
                result, measurement = depth.newest(target)
            except FrameError as error:
                if target:
                    raise
                note = f'; without points: {error}'
            else:
                return result, measurement, ''
        else:
            note = '; without points: depth.enabled is false'
        with self._lock:
            newest = self._newest
        if newest is None:
            raise NoImageError('no image has been tracked yet: wait for ~/labels, then ask again')
        return newest, None, note

    def _place(self, response: Any, item: TrackedObject, measurement: Measurement) -> str:
        placed = next((placed for placed in placed_objects(measurement) if placed.object.id == item.id), None)
        if placed is None:
            return '; without points: fewer than 8 of its pixels have depth'
        depth = self._node.parameters.depth
        response.has_depth = True
        response.cloud = object_cloud(measurement, [item], 1, depth.rim)
        response.box = PoseStamped(header=measurement.header)
        position, turned = response.box.pose.position, response.box.pose.orientation
        position.x, position.y, position.z = placed.centre
        turned.x, turned.y, turned.z, turned.w = placed.orientation
        x, y, z = placed.size
        response.box_size = Vector3(x=x, y=y, z=z)
        return ''
