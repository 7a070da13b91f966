# SPDX-License-Identifier: MIT
"""Bridge between page and node: topics on demand, and the status of the node as data."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage, Image

from xmem_ros import pictures
from xmem_ros.client.calls import ServiceCalls
from xmem_ros.client.link import NodeLink
from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.conversions.images import stamp_ns
from xmem_ros.conversions.objects import seconds_of
from xmem_ros.errors import FrameError, NodeError, NodeMissingError
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import qos
from xmem_ros.objects import ObjectState
from xmem_ros.overlay import colour_of

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_SIDE = 1280  # px, longest side of an image that is encoded here
FORWARDED_SIDE, FORWARDED_BYTES = 1920, 4 * 2**20  # px and bytes of a JPEG that is sent as it is
QUALITY = 80  # JPEG quality
_SILENT_S = 2.0  # time without an image after which the page reports it
_RATE_S = 3.0  # averaging period of the rate
_STATE_S = 1.0  # timeout of a state request
_STATE_AGE_S = 1.0  # period of state requests to an active node
_MOST_AGE_S = 3600.0  # older stamps belong to a replay; the time since the last message is then the age
# Bounds on what the page receives: any participant of the graph can publish under the node's name.
MOST_OBJECTS = 255
MOST_NAME = 80  # characters of an object's name
MOST_TEXT = 1000  # characters of a diagnostic value
MOST_OTHERS = 10  # listed names of other trackers
STATES = ('unconfigured', 'inactive', 'active', 'finalized', 'configuring', 'cleaningup', 'activating', 'deactivating')


class Bridge(ServiceCalls):
    """Connection of the pages to the node: topics, status and services.

    Arguments:
        name: full name of the node.
        on_image: called with each overlay (sensor_msgs/CompressedImage or Image) in the link's
            thread.
        timeout: time limit of a service call [s].
    """

    def __init__(self, name: str, on_image: Callable[[Any], None], *, timeout: float = 15.0) -> None:
        super().__init__(NodeLink(name, timeout=timeout))
        self._on_image = on_image
        self._lock = threading.Lock()
        self._subscriptions: dict[str, Any] = {}
        self._subscribing = threading.Lock()  # protects `_subscriptions` and `_wanted`
        self._wanted = (False, False)  # overlay, objects
        self._known_state, self._requested = '', 0.0  # lifecycle state; time of the last request, monotonic s
        self._forget()

    def close(self) -> None:
        """Leave the graph."""
        self.link.close()

    def subscribe_to(self, *, overlay: bool, objects: bool) -> None:
        """Subscribe to these topics alone; the node draws overlays only for subscribers.

        Overlays come compressed, unless only the others are offered.
        """
        with self._subscribing:
            self._wanted = overlay, objects
            self._subscribe()

    def _subscribe(self) -> None:
        overlay, objects = self._wanted
        raw = overlay and self._only_raw_overlays()
        wanted = {
            '~/overlay/compressed': (overlay and not raw, CompressedImage, self._on_image, qos.output()),
            '~/overlay': (raw, Image, self._on_image, qos.output()),
            '~/objects': (objects, TrackedObjectArray, self._on_objects, qos.output()),
            '/diagnostics': (objects, DiagnosticArray, self._on_diagnostics, qos.diagnostics()),
        }
        if not objects:
            self._forget()
        for topic, (want, kind, callback, profile) in wanted.items():
            if want and topic not in self._subscriptions:
                name = topic.replace('~', self.link.name)
                self._subscriptions[topic] = self.link.subscribe(kind, name, callback, profile)
            elif not want and topic in self._subscriptions:
                self.link.node.destroy_subscription(self._subscriptions.pop(topic))

    def _only_raw_overlays(self) -> bool:
        count = self.link.node.count_publishers
        return bool(count(self.link.topic('overlay'))) and not count(self.link.topic('overlay/compressed'))

    def status(self) -> dict[str, Any]:
        """Return state, objects and figures of the node for JSON; blocks for up to `_STATE_S`."""
        with contextlib.suppress(NodeError), self._subscribing:
            self._subscribe()  # another node may offer other topics
        state = self._state()
        others = self._others() if state == 'missing' else []
        now = time.monotonic()
        with self._lock:
            while self._arrivals and now - self._arrivals[0] > _RATE_S:
                self._arrivals.popleft()
            silent = now - self._last_arrival if self._last_arrival else None
            topic, no_image, memory = self._topic, self._no_image, self._memory
            objects, age = self._objects, None
            if self._newest_stamp and silent is not None:
                age = time.time() - self._newest_stamp / 1e9
                if not -1 < age < _MOST_AGE_S:
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
        """Return the lifecycle state, or missing, busy or unknown."""
        try:
            if not self.link.is_there():
                return 'missing'
            if time.monotonic() > self._requested + _STATE_AGE_S or self._known_state != 'active':
                state = self.link.state(_STATE_S)
                self._known_state = state if state in STATES else 'unknown'
                self._requested = time.monotonic()
            return self._known_state
        except NodeMissingError:
            return 'missing'
        except NodeError:
            return 'busy'

    def _others(self) -> list[str]:
        """Return the names of some visible trackers."""
        try:
            return self.link.others()[:MOST_OTHERS]
        except NodeError:  # the link was closed meanwhile
            return []

    def _forget(self) -> None:
        with self._lock:
            self._arrivals: deque[float] = deque(maxlen=1000)
            self._last_arrival = 0.0  # time.monotonic() of the last objects; 0: none
            self._newest_stamp = 0
            self._objects: list[dict[str, Any]] = []
            self._topic = ''  # image topic
            self._no_image = ''  # why no image arrives and what to do; empty while images arrive
            self._memory: int | None = None

    def _on_objects(self, message: Any) -> None:
        objects = [_object(item) for item in message.objects[:MOST_OBJECTS]]
        with self._lock:
            self._last_arrival = time.monotonic()
            self._arrivals.append(self._last_arrival)
            self._newest_stamp = stamp_ns(message.header.stamp)
            self._objects = objects

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == keys.status_name(self.link.name):
                values = {pair.key: pair.value for pair in status.values}
                with self._lock:
                    self._topic = values.get(keys.IMAGE_TOPIC, '')[:MOST_TEXT]
                    self._no_image = values.get(keys.NO_IMAGE, '')[:MOST_TEXT]
                    self._memory = _bytes(values.get(keys.MEMORY_BYTES, ''))


def _object(item: Any) -> dict[str, Any]:
    """Convert an xmem_ros/TrackedObject to JSON types, whatever its fields contain."""
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
    """Parse a number of bytes; None if the text is not a number."""
    return int(text) if len(text) < 16 and text.isascii() and text.isdigit() else None


def encode_overlay(message: Any) -> tuple[bytes, tuple[int, int]]:
    """Pack an overlay for the page: header length (uint32, little-endian), JSON header, JPEG.

    The header holds the image's stamp and full size; the JPEG may be smaller. A JPEG of up to
    `FORWARDED_SIDE` px is forwarded as it is.

    Args:
        message: sensor_msgs/CompressedImage or Image.

    Returns:
        The bytes; width and height of the full size [px].

    Raises:
        FrameError: the image cannot be read.
    """
    jpeg, size = _forwarded(message) if hasattr(message, 'format') else (b'', (0, 0))
    if not jpeg:
        jpeg, size = _encoded(message)
    stamp, (width, height) = message.header.stamp, size
    header = json.dumps({'sec': stamp.sec, 'nanosec': stamp.nanosec, 'width': width, 'height': height}).encode()
    return struct.pack('<I', len(header)) + header + jpeg, size


def _forwarded(message: Any) -> tuple[bytes, tuple[int, int]]:
    """Return a JPEG and its size; no bytes if it is another format, or large."""
    data = bytes(message.data)
    try:
        with pictures.opened(data, ('JPEG',)) as image:
            size = (image.width, image.height)
    except pictures.PictureError:
        return b'', (0, 0)
    return (data, size) if max(size) <= FORWARDED_SIDE and len(data) <= FORWARDED_BYTES else (b'', size)


def _encoded(message: Any) -> tuple[bytes, tuple[int, int]]:
    """Encode an image of up to `LONGEST_SIDE` px; returns the JPEG and the full size."""
    try:
        pixels = rgb_of(message)
        height, width = pixels.shape[:2]
        scale = LONGEST_SIDE / max(height, width)
        if scale < 1:
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    except cv2.error as error:
        raise FrameError(f'OpenCV cannot encode the image ({error.err}): check the encoding of ~/overlay') from error
    return jpeg.tobytes(), (width, height)
