# SPDX-License-Identifier: MIT
"""Between the page and the node: hears its topics while somebody looks, and says how it is."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from xmem_ros.client.calls import Calls
from xmem_ros.client.link import NodeLink
from xmem_ros.conversions.images import rgb_from_image, stamp_ns
from xmem_ros.errors import NodeError, NodeMissingError, listed
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import qos
from xmem_ros.objects import ObjectState
from xmem_ros.overlay import colour_of

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_SIDE = 1280  # px that an image is sent with
QUALITY = 80  # of its JPEG
_SILENT_S = 2.0  # without an image, after which the page says so
_RATE_S = 3.0  # over which the rate is measured
_STATE_S = 1.0  # that an answer about the node's state is waited for
_STATE_AGE_S = 1.0  # after which an active node is asked for its state again
_ODD_AGE_S = 3600.0  # older: a replay, whose stamps say nothing about now


class Bridge(Calls):
    """The node, as the page needs it.

    Arguments:
        name: of the node.
        on_image: is called in another thread with each overlay that came, a sensor_msgs/Image.
        timeout: the longest that a call of the node waits [s].
    """

    def __init__(self, name: str, on_image: Callable[[Any], None], *, timeout: float = 15.0) -> None:
        super().__init__(NodeLink(name, timeout=timeout))
        self._on_image = on_image
        self._lock = threading.Lock()
        self._subscriptions: dict[str, Any] = {}
        self._known, self._asked = '', 0.0  # the lifecycle state, and when it was asked for
        self._forget()

    def close(self) -> None:
        """Leave the graph."""
        self.link.close()

    def look(self, *, overlay: bool, objects: bool) -> None:
        """Subscribe to what is looked at, and to nothing else: the node draws an overlay only while somebody does."""
        wanted = {
            '~/overlay': (overlay, Image, self._on_image, qos.output()),
            '~/objects': (objects, TrackedObjectArray, self._hear_objects, qos.output()),
            '/diagnostics': (objects, DiagnosticArray, self._hear_diagnostics, qos.diagnostics()),
        }
        if not objects:
            self._forget()
        for topic, (want, kind, heard, profile) in wanted.items():
            if want and topic not in self._subscriptions:
                name = topic.replace('~', self.link.name)
                self._subscriptions[topic] = self.link.subscribe(kind, name, heard, profile)
            elif not want and topic in self._subscriptions:
                self.link.node.destroy_subscription(self._subscriptions.pop(topic))

    def status(self) -> dict[str, Any]:
        """State of the node and of its objects, and figures, as JSON can hold them; waits up to `_STATE_S`."""
        state, text = self._state()
        now = time.monotonic()
        with self._lock:
            while self._arrivals and now - self._arrivals[0] > _RATE_S:
                self._arrivals.popleft()
            silent = now - self._heard if self._heard else None
            summary, memory, waits = self._summary, self._memory, self._waits
            objects, age = self._objects, None
            if self._newest_stamp and silent is not None:
                age = time.time() - self._newest_stamp / 1e9
                if not -1 < age < _ODD_AGE_S:
                    age = silent
            seconds = now - self._arrivals[0] if self._arrivals else 0.0
            rate = (len(self._arrivals) - 1) / seconds if seconds > 0.2 else 0.0
        if state != 'active':
            rate, age, objects = 0.0, None, []
        elif silent is None or silent > _SILENT_S:
            text = summary if summary.startswith('no image') else ''
        return {
            'type': 'status',
            'node': self.link.name,
            'state': state,
            'text': text,
            'waits': waits,
            'rate': round(rate, 2),
            'age': None if age is None else round(max(age, 0.0), 3),
            'silent': None if silent is None else round(silent, 1),
            'memory': memory,
            'objects': objects,
        }

    def _state(self) -> tuple[str, str]:
        """The lifecycle state, or missing or busy; and what to do about it."""
        name = self.link.name
        try:
            if not self.link.is_there():
                others = self.link.others()
                known = f'Trackers that are there: {listed(others)}' if others else 'No other tracker is there either'
                return 'missing', (
                    f'No node {name} can be seen. {known}. Start it (ros2 launch xmem_ros track.launch.py), or start '
                    'the page with --node and its full name, such as '
                    f'{others[0] if others else "/front/xmem"}. This page goes on by itself once it is there.'
                )
            if time.monotonic() > self._asked + _STATE_AGE_S or self._known != 'active':
                self._known = self.link.state(_STATE_S)
                self._asked = time.monotonic()
            state = self._known
        except NodeMissingError as error:
            return 'missing', str(error)
        except NodeError:
            return 'busy', f'{name} does not answer at the moment.'
        if state == 'active':
            return state, ''
        steps = ['activate'] if state == 'inactive' else ['configure', 'activate']
        commands = '; '.join(f'ros2 lifecycle set {name} {step}' for step in steps)
        return state, f'{name} is {state} and tracks nothing. Start it: {commands}'

    def _forget(self) -> None:
        with self._lock:
            self._arrivals: deque[float] = deque()
            self._heard = 0.0  # time.monotonic() of the last objects; 0: none
            self._newest_stamp = 0
            self._objects: list[dict[str, Any]] = []
            self._summary = ''
            self._waits = ''  # for what, and what to do where it does not come
            self._memory: int | None = None

    def _hear_objects(self, message: Any) -> None:
        objects = [
            {
                'id': item.id,
                'name': item.name,
                'state': ObjectState(item.state).name,
                'score': round(float(item.score), 3),
                'colour': '#{:02x}{:02x}{:02x}'.format(*colour_of(item.label)),
                'area': item.area,
                'absent': item.absent,
            }
            for item in message.objects
        ]
        with self._lock:
            self._heard = time.monotonic()
            self._arrivals.append(self._heard)
            self._newest_stamp = stamp_ns(message.header.stamp)
            self._objects = objects

    def _hear_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == f'{self.link.name.lstrip("/")}: tracking':
                values = {pair.key: pair.value for pair in status.values}
                with self._lock:
                    self._summary = status.message
                    topic = values.get('image topic', '')
                    self._waits = values.get('no image', f'it waits for images on {topic}' if topic else '')
                    self._memory = int(values['memory (bytes)']) if 'memory (bytes)' in values else None


def encoded(message: Any) -> bytes:
    """An overlay as the page reads it: length of a header (4 bytes, little end first), the header as JSON, a JPEG.

    The header has the image's stamp and its full size; the JPEG may be smaller.

    Raises:
        FrameError: it cannot be read.
    """
    pixels = rgb_from_image(message)
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    stamp = message.header.stamp
    header = json.dumps({'sec': stamp.sec, 'nanosec': stamp.nanosec, 'width': width, 'height': height}).encode()
    return struct.pack('<I', len(header)) + header + jpeg.tobytes()
