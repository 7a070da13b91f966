# SPDX-License-Identifier: MIT
"""Messages of bags as rosbags dataclasses, this package's types included. Imports no rclpy.

`definitions/` has copies of `msg/*.msg` for installations by pip.
"""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.conversions import objects as tracked_objects
from xmem_ros.conversions.compressed_images import compressed_from_array
from xmem_ros.errors import BagError
from xmem_ros.recordings.limits import MAX_SEEDS, MAX_SEEDS_DEFINITION_LENGTH
from xmem_ros.recordings.rosbags_version import available

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.objects import TrackedObject

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
ACCEPTED_SEEDS = 'xmem_ros/msg/AcceptedSeeds'
TRACKING_EVENT = 'xmem_ros/msg/TrackingEvent'
OBJECTS = tracked_objects.OBJECTS

_DEFINITIONS = Path(__file__).parent / 'definitions'


@functools.cache
def typestore() -> Any:
    """Return rosbags' store of Humble's types and this package's.

    sensor_msgs/Image and its fields are the same in every distribution.
    """
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types: dict[str, Any] = {}
    for file in sorted(_DEFINITIONS.glob('*.msg')):
        types |= get_types_from_msg(file.read_text(encoding='utf-8'), f'xmem_ros/msg/{file.stem}')
    store.register(types)
    return store


def is_known_definition(connection: Any) -> bool:
    """Return whether a connection's type was recorded with the fields of this version.

    connection: rosbags' connection; one without a definition counts as matching.
    """
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import TypesysError, get_types_from_msg

    if len(connection.msgdef.data) > MAX_SEEDS_DEFINITION_LENGTH:
        return False
    if connection.msgdef.format is not MessageDefinitionFormat.MSG or not connection.msgdef.data:
        return True
    try:
        recorded = get_types_from_msg(connection.msgdef.data, connection.msgtype)
    except (TypesysError, RecursionError):
        return False
    known = typestore().fielddefs
    return all(name in known and fields == known[name][1] for name, (_, fields) in recorded.items())


def make(msgtype: str, **fields: Any) -> Any:
    """Make a message; msgtype: as in `std_msgs/msg/Header`. rosbags needs all fields.

    Without rosbags, which videos and folders do not need, it is a namespace with these fields.
    """
    return typestore().types[msgtype](**fields) if available() else SimpleNamespace(__msgtype__=msgtype, **fields)


def time_message(stamp_ns: int) -> Any:
    """Make a builtin_interfaces/Time from nanoseconds."""
    return make('builtin_interfaces/msg/Time', sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def header(stamp_ns: int, frame_id: str) -> Any:
    """Make a std_msgs/Header."""
    return make('std_msgs/msg/Header', stamp=time_message(stamp_ns), frame_id=frame_id)


def image(header: Any, pixels: np.ndarray, encoding: str) -> Any:
    """Make a sensor_msgs/Image of pixels H×W or H×W×C; shares contiguous memory."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return make(
        IMAGE,
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=pixels.reshape(-1).view(np.uint8),
    )


def png(header: Any, pixels: np.ndarray) -> Any:
    """Make a sensor_msgs/CompressedImage with a PNG of pixels H×W uint8."""
    encoded: Any = compressed_from_array(pixels, 'png', SimpleNamespace)
    return make(COMPRESSED_IMAGE, header=header, format=encoded.format, data=np.frombuffer(encoded.data, np.uint8))


def box(x: int = 0, y: int = 0, width: int = 0, height: int = 0) -> Any:
    """Make a sensor_msgs/RegionOfInterest [px]."""
    return make(
        'sensor_msgs/msg/RegionOfInterest', x_offset=x, y_offset=y, height=height, width=width, do_rectify=False
    )


def seed(
    kind: int,
    *,
    object_id: int = 0,
    name: str = '',
    mask: np.ndarray | None = None,
    around: Sequence[int] = (),
    points: Sequence[Sequence[float]] = (),
    point_labels: Sequence[int] = (),
) -> Any:
    """Make an xmem_ros/Seed.

    Arguments:
        kind: MASK, BOX, POINTS or LABELS of `xmem_ros.conversions.seeds`.
        object_id: id of the object to correct; 0 begins a new one.
        name: name of the object.
        mask: H×W bool or uint8.
        around: box: x, y, width, height [px].
        points: x, y of each [px].
        point_labels: 1 on the object, 0 not on it.
    """
    no_header = header(0, '')
    empty = make(
        IMAGE, header=no_header, height=0, width=0, encoding='', is_bigendian=0, step=0, data=np.zeros(0, np.uint8)
    )
    return make(
        'xmem_ros/msg/Seed',
        id=object_id,
        name=name,
        kind=kind,
        mask=empty if mask is None else image(no_header, mask.view(np.uint8) if mask.dtype == bool else mask, 'mono8'),
        box=box(*around),
        points=[make('geometry_msgs/msg/Point32', x=float(x), y=float(y), z=0.0) for x, y in points],
        point_labels=np.asarray(point_labels, np.int8),
    )


def accepted_seeds(header: Any, seeds: Sequence[Any], ids: Sequence[int], labels: Sequence[int]) -> Any:
    """Make an xmem_ros/AcceptedSeeds."""
    return make(
        ACCEPTED_SEEDS,
        header=header,
        seeds=list(seeds),
        ids=np.asarray(ids, np.uint32),
        labels=np.asarray(labels, np.uint8),
    )


def objects_message(header: Any, objects: Sequence[TrackedObject]) -> Any:
    """Make an xmem_ros/TrackedObjectArray, without processing time so that runs are equal."""
    return tracked_objects.objects_message(header, objects, 0.0, make)


def serialize(message: Any) -> bytes:
    """Return the CDR bytes of a message."""
    return bytes(typestore().serialize_cdr(message, message.__msgtype__))


def count_points(raw: bytes, msgtype: str = ACCEPTED_SEEDS) -> int:
    """Count the points of all seeds in the CDR bytes of an xmem_ros/AcceptedSeeds or TrackingEvent.

    As Python objects, millions of seeds or points take gigabytes. Raises `BagError` for more than
    `MAX_SEEDS` seeds, and for damaged bytes.
    """
    content, position = memoryview(raw)[4:], 0
    u32 = struct.Struct('<I' if raw[1:2] == b'\x01' else '>I')

    def number() -> int:
        nonlocal position
        position = -(-position // 4) * 4 + 4
        return int(u32.unpack_from(content, position - 4)[0])

    def skip(size: int) -> None:
        nonlocal position
        position += size

    def skip_header() -> None:
        number()
        number()
        skip(number())

    total = 0
    try:
        skip_header()
        if msgtype == TRACKING_EVENT:
            skip(1)  # kind
            for _ in range(4):  # session, sequence, after
                number()
        seeds = number()
        if seeds > MAX_SEEDS:
            raise BagError(f'{seeds} seeds; at most {MAX_SEEDS} are read')
        for _ in range(seeds):
            number()  # id
            skip(number())  # name
            skip(1)  # kind
            skip_header()  # of the mask
            number()
            number()
            skip(number())  # encoding
            skip(1)
            number()
            skip(number())  # pixels
            for _ in range(4):  # box
                number()
            skip(1)
            points = number()
            skip(12 * points)
            skip(number())  # labels of the points
            total += points
    except struct.error as error:
        raise BagError('it is cut off') from error
    return total


def deserialize(raw: bytes, msgtype: str) -> Any:
    """Return the message of CDR bytes; damaged bytes can raise any exception."""
    return typestore().deserialize_cdr(raw, msgtype)
