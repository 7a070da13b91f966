# SPDX-License-Identifier: MIT
"""Training videos from a bag of images and the node's label images with the same stamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.errors import BagError, FrameError, ParameterError
from xmem_ros.intensity import IntensityScale
from xmem_ros.media import VOID
from xmem_ros.progress import Bar
from xmem_ros.recordings.rosbag import OpenBag, is_bag
from xmem_ros.recordings.rosbags_version import require_rosbags
from xmem_ros.recordings.typestore import deserialize
from xmem_ros.training.footage import (
    Budget,
    Footage,
    FootageError,
    Pictures,
    scaled_frame,
    scaled_labels,
    scaled_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = 'sensor_msgs/msg/Image'
DEPTH = ('16UC1', '32FC1', 'mono16')
OURS = ('labels', 'mask', 'overlay')  # endings of the node's image topics


def read_bag(path: Path, shorter_side: int, budget: Budget | None = None, image_topic: str = '') -> list[Footage]:
    """Read the images of a bag that have a label image (mono8, topic ending in `labels`).

    An image and its label image have the same stamp and frame_id. Returns one video per label
    topic, from its first non-empty label image.

    Raises:
        FootageError: not a bag, no label images, none with the stamp of an image, an ambiguous
            image topic, or too little memory.
        ParameterError: rosbags is not installed.
    """
    require_rosbags(path)
    budget = budget or Budget(1 << 40)
    try:
        with OpenBag(path) as reader:
            images = [c for c in reader.connections if c.msgtype == IMAGE]
            labelled = [c for c in images if c.topic.endswith('labels')]
            pictured = [c for c in images if not c.topic.endswith(OURS) and image_topic in ('', c.topic)]
            if not labelled or not pictured:
                topics = ', '.join(f'{c.topic} ({c.msgtype})' for c in reader.connections) or 'nothing'
                raise FootageError(
                    f'{path}: needs raw images and, on a topic ending in "labels", label images; it holds {topics}; '
                    'record compressed images as raw ones, through image_transport republish'
                )
            return [_video(path, reader, connection, pictured, shorter_side, budget) for connection in labelled]
    except (FootageError, ParameterError):
        raise
    except BagError as error:
        raise FootageError(str(error)) from error
    except FrameError as error:
        raise FootageError(f'{path}: {error}') from error
    except Exception as error:  # rosbags' errors for damaged files have no common base class
        raise FootageError(f'{path}: not a readable bag ({error}); ros2 bag reindex may repair it') from error


def _video(path: Path, reader: Any, labels: Any, pictured: list[Any], shorter_side: int, budget: Budget) -> Footage:
    from xmem_ros.conversions.images import mask_from_image, rgb_from_image

    found: dict[tuple[int, str], np.ndarray] = {}
    kept_bytes = 0
    for message in Bar(_messages(reader, labels), desc=f'reading {labels.topic}', unit='label'):
        mask = mask_from_image(message)
        size = scaled_size(mask.shape[:2], shorter_side)
        if found or mask.any():  # before the first seed the node publishes empty labels
            scaled = scaled_labels(np.where(mask == VOID, np.uint8(0), mask), size)
            kept_bytes += scaled.nbytes
            if kept_bytes > budget.left:
                raise FootageError(f'{path}: more footage than cache_mb has room for; raise it, or shorten the bag')
            found[_key(message)] = scaled
    frames: dict[str, dict[tuple[int, str], np.ndarray]] = {}
    for connection in pictured:
        scale = IntensityScale()
        for message in Bar(_messages(reader, connection), desc=f'reading {connection.topic}', unit='image'):
            key = _key(message)
            if key not in found or message.encoding in DEPTH:
                continue
            frame = scaled_frame(rgb_from_image(message, scale), shorter_side).copy()
            if not budget.take(frame.nbytes + found[key].nbytes):
                raise FootageError(f'{path}: more footage than cache_mb has room for; raise it, or shorten the bag')
            frames.setdefault(connection.topic, {})[key] = frame
    if not frames:
        raise FootageError(f'{path}: no image has the stamp and frame_id of a label image of {labels.topic}')
    if len(frames) > 1:
        raise FootageError(
            f'{path}: {" and ".join(sorted(frames))} have images with the stamps of {labels.topic}; set '
            'image_topic to one of them'
        )
    (kept,) = frames.values()
    keys = sorted(kept)
    masks: list[Any] = [scaled_labels(found[key], kept[key].shape[:2]) for key in keys]
    return Footage(f'{path.stem}{labels.topic}', Pictures([kept[key] for key in keys]), Pictures(masks))


def _messages(reader: Any, connection: Any) -> Iterator[Any]:
    for _, _, raw in reader.messages([connection]):
        yield deserialize(raw, connection.msgtype)


def _key(message: Any) -> tuple[int, str]:
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec, message.header.frame_id


__all__ = ['is_bag', 'read_bag']
