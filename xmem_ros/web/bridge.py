# SPDX-License-Identifier: MIT
"""Between the page and the node: hears its topics while somebody looks, and tells facts for the page to word."""

from __future__ import annotations

import json
import math
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
from xmem_ros.conversions.objects import seconds_of
from xmem_ros.errors import FrameError, NodeError, NodeMissingError
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import diagnostic_keys as keys
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
# Whoever is in the graph can send anything under the node's name, and the page gets no more of it than this.
MOST_OBJECTS = 255
MOST_NAME = 80  # characters of an object's name
MOST_TEXT = 1000  # characters of what the node says
MOST_OTHERS = 10  # names of other trackers
STATES = ('unconfigured', 'inactive', 'active', 'finalized', 'configuring', 'cleaningup', 'activating', 'deactivating')


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
        state = self._state()
        others = self._others() if state == 'missing' else []
        now = time.monotonic()
        with self._lock:
            while self._arrivals and now - self._arrivals[0] > _RATE_S:
                self._arrivals.popleft()
            silent = now - self._heard if self._heard else None
            topic, no_image, memory = self._topic, self._no_image, self._memory
            objects, age = self._objects, None
            if self._newest_stamp and silent is not None:
                age = time.time() - self._newest_stamp / 1e9
                if not -1 < age < _ODD_AGE_S:
                    age = silent
            seconds = now - self._arrivals[0] if self._arrivals else 0.0
            rate = (len(self._arrivals) - 1) / seconds if seconds > 0.2 else 0.0
        if state != 'active':
            rate, age, objects = 0.0, None, []
        return {
            'type': 'status',
            'node': self.link.name,
            'state': state,
            'others': others,
            'image_topic': topic,
            'no_image': no_image,
            'rate': round(rate, 2),
            'age': None if age is None else round(max(age, 0.0), 3),
            'silent': None if silent is None else round(silent, 1),
            'stale': silent is not None and silent > _SILENT_S,
            'memory': memory,
            'objects': objects,
        }

    def _state(self) -> str:
        """The lifecycle state, or missing, busy or unknown."""
        try:
            if not self.link.is_there():
                return 'missing'
            if time.monotonic() > self._asked + _STATE_AGE_S or self._known != 'active':
                state = self.link.state(_STATE_S)
                self._known = state if state in STATES else 'unknown'
                self._asked = time.monotonic()
            return self._known
        except NodeMissingError:
            return 'missing'
        except NodeError:
            return 'busy'

    def _others(self) -> list[str]:
        """Some of the trackers that are there."""
        try:
            return self.link.others()[:MOST_OTHERS]
        except NodeError:  # it was closed meanwhile
            return []

    def _forget(self) -> None:
        with self._lock:
            self._arrivals: deque[float] = deque(maxlen=1000)
            self._heard = 0.0  # time.monotonic() of the last objects; 0: none
            self._newest_stamp = 0
            self._objects: list[dict[str, Any]] = []
            self._topic = ''  # of the images
            self._no_image = ''  # why none comes, and what to do; empty: they come
            self._memory: int | None = None

    def _hear_objects(self, message: Any) -> None:
        objects = [_object(item) for item in message.objects[:MOST_OBJECTS]]
        with self._lock:
            self._heard = time.monotonic()
            self._arrivals.append(self._heard)
            self._newest_stamp = stamp_ns(message.header.stamp)
            self._objects = objects

    def _hear_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == keys.status_name(self.link.name):
                values = {pair.key: pair.value for pair in status.values}
                with self._lock:
                    self._topic = values.get(keys.IMAGE_TOPIC, '')[:MOST_TEXT]
                    self._no_image = values.get(keys.NO_IMAGE, '')[:MOST_TEXT]
                    self._memory = _bytes(values.get(keys.MEMORY_BYTES, ''))


def _object(item: Any) -> dict[str, Any]:
    """A xmem_ros/TrackedObject as JSON can hold it, whatever its fields say."""
    known = [state.value for state in ObjectState]
    return {
        'id': item.id,
        'name': item.name[:MOST_NAME],
        'state': ObjectState(item.state).name if item.state in known else 'LOST',
        'score': round(float(item.score), 3) if math.isfinite(item.score) else 0.0,
        'colour': '#{:02x}{:02x}{:02x}'.format(*colour_of(item.label)),
        'area': item.area,
        'unseen': round(seconds_of(item.time_since_seen), 1),
    }


def _bytes(text: str) -> int | None:
    """A number of bytes; None where the text is none."""
    return int(text) if len(text) < 16 and text.isascii() and text.isdigit() else None


def encoded(message: Any) -> tuple[bytes, tuple[int, int]]:
    """An overlay as the page reads it: length of a header (4 bytes, little end first), the header as JSON, a JPEG.

    The header has the image's stamp and its full size; the JPEG may be smaller.

    Returns:
        The bytes; and width and height of the full size [px].

    Raises:
        FrameError: it cannot be read.
    """
    try:
        pixels = rgb_from_image(message)
        height, width = pixels.shape[:2]
        scale = LONGEST_SIDE / max(height, width)
        if scale < 1:
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    except cv2.error as error:
        raise FrameError(f'OpenCV refuses the image: {error.err}') from error
    stamp = message.header.stamp
    header = json.dumps({'sec': stamp.sec, 'nanosec': stamp.nanosec, 'width': width, 'height': height}).encode()
    return struct.pack('<I', len(header)) + header + jpeg.tobytes(), (width, height)
