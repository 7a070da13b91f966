# SPDX-License-Identifier: MIT
"""Malicious node under the tracker's name, over real DDS."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.srv import GetState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from xmem_ros.conversions.images import image_from_array
from xmem_ros.errors import ErrorCode
from xmem_ros.msg import TrackedObject, TrackedObjectArray
from xmem_ros.node import qos
from xmem_ros.srv import HoldImage, PreviewSeed, RemoveObjects, ResetTracker, SeedObjects

MARKUP = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'


class HostileNode:
    """Node that answers and publishes what a test sets.

    `state` is its lifecycle state; `message`, `success`, `ids` and `code` go into its responses,
    `masks` and `qualities` into those of previews, which wait for `may_preview`. `requests` are the
    seeds and previews received.
    Without `previews` it is an older node, without that service.
    """

    def __init__(self, name: str = 'xmem', namespace: str = '/hostile', *, previews: bool = True) -> None:
        self.state, self.message, self.success, self.ids = 'active', MARKUP, False, [1]
        self.code = ErrorCode.INVALID_SEED
        self.masks, self.qualities, self.requests = [], [], []
        self.may_preview = threading.Event()
        self.may_preview.set()
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(name, namespace=namespace, context=self.context)
        self.name = f'{namespace}/{name}'
        self.overlay = self.node.create_publisher(Image, '~/overlay', qos.output())
        self.labels = self.node.create_publisher(Image, '~/labels', qos.output())
        self.objects = self.node.create_publisher(TrackedObjectArray, '~/objects', qos.output())
        self.diagnostics = self.node.create_publisher(DiagnosticArray, '/diagnostics', qos.diagnostics())
        self.node.create_service(GetState, '~/get_state', self._state)
        for kind, service in (
            (SeedObjects, 'seed'),
            (RemoveObjects, 'remove'),
            (ResetTracker, 'reset'),
            (HoldImage, 'hold'),
            *([(PreviewSeed, 'preview_seed')] if previews else []),
        ):
            self.node.create_service(kind, f'~/{service}', self._answer)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stamp = 0
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """Leave the graph."""
        self.context.try_shutdown()
        self._thread.join(10)
        self.node.destroy_node()

    def say(self, *items: TrackedObject, **diagnostics: str) -> None:
        """Publish an image of 16×12 px, objects and diagnostics; `_` in a key becomes a space."""
        self._stamp += 1
        header = Header(frame_id='camera')
        header.stamp.sec = self._stamp
        for publisher, pixels, encoding in (
            (self.overlay, np.full((12, 16, 3), 99, np.uint8), 'rgb8'),
            (self.labels, np.ones((12, 16), np.uint8), 'mono8'),
        ):
            image = image_from_array(pixels, encoding, Image)
            image.header = header
            publisher.publish(image)
        self.objects.publish(TrackedObjectArray(header=header, objects=list(items)))
        status = DiagnosticStatus(name=f'{self.name.lstrip("/")}: tracking', message='no image')
        status.values = [KeyValue(key=key.replace('_', ' '), value=value) for key, value in diagnostics.items()]
        self.diagnostics.publish(DiagnosticArray(status=[status]))

    def _state(self, _: Any, response: Any) -> Any:
        response.current_state.label = self.state
        return response

    def _answer(self, request: Any, response: Any) -> Any:
        response.success, response.message = self.success, self.message
        response.error_code = ErrorCode.NONE if self.success else self.code
        if isinstance(response, SeedObjects.Response):
            response.ids = self.ids
        if isinstance(response, (SeedObjects.Response, PreviewSeed.Response)):
            self.requests.append(request)
        if isinstance(response, PreviewSeed.Response):
            self.may_preview.wait(60)
            response.masks = [image_from_array(mask, 'mono8', Image) for mask in self.masks]
            response.qualities = self.qualities
        return response
