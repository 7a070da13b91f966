# SPDX-License-Identifier: MIT
"""A bag with images and labels of the same stamps, as the node publishes them, as a training video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from xmem_ros.errors import FrameError, ParameterError
from xmem_ros.training.footage import Budget, Footage, FootageError, Pictures, object_labels, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = 'sensor_msgs/msg/Image'


def is_bag(path: Path) -> bool:
    """Whether a path is a ROS 2 bag: its folder, or a file of its own."""
    return path.suffix in ('.mcap', '.db3') or (path / 'metadata.yaml').is_file()


def read_bag(path: Path, shorter_side: int, budget: Budget | None = None) -> Footage:
    """Read the images that a label image (mono8, topic ending in `labels`) has the same stamp as.

    Several cameras: the images' topic is the one whose header's frame_id the labels have too.

    Raises:
        FootageError: not a bag, no labels in it, no image of their stamps.
        ParameterError: rosbags is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise ParameterError(f'{path}: bags are read by rosbags: pip install rosbags') from None
    from xmem_ros.node.conversions import mask_from_image, rgb_from_image

    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            images = [c for c in reader.connections if c.msgtype == IMAGE]
            labelled = [c for c in images if c.topic.endswith('labels')]
            pictured = [c for c in images if not c.topic.endswith(('labels', 'mask', 'overlay'))]
            if not labelled or not pictured:
                topics = ', '.join(f'{c.topic} ({c.msgtype})' for c in reader.connections) or 'nothing'
                raise FootageError(
                    f'{path}: needs images and, on a topic ending in "labels", label images; it holds {topics}'
                )
            labels: dict[tuple[int, str], np.ndarray] = {}
            for message in tqdm(_messages(reader, labelled), desc=f'reading {path.name}', unit='label'):
                labels[_key(message)] = object_labels(mask_from_image(message).copy())
            pairs: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}
            for message in tqdm(_messages(reader, pictured), desc=f'reading {path.name}', unit='image'):
                if (key := _key(message)) in labels:
                    frame, label = scaled(rgb_from_image(message), labels[key], shorter_side)
                    pairs[key] = (frame.copy(), label)
    except FootageError:
        raise
    except FrameError as error:
        raise FootageError(f'{path}: {error}') from error
    except Exception as error:  # rosbags' readers have no common base for damaged files
        raise FootageError(f'{path}: not a readable bag ({error})') from error
    if not pairs:
        raise FootageError(f'{path}: none of {len(labels)} label images has the stamp and frame_id of an image')
    frames = [pairs[key] for key in sorted(pairs)]
    if budget:
        budget.take(sum(frame.nbytes + label.nbytes for frame, label in frames))
    return Footage(path.stem, Pictures([f for f, _ in frames]), Pictures([label for _, label in frames]))


def _messages(reader: Any, connections: list[Any]) -> Iterator[Any]:
    for connection, _, raw in reader.messages(connections=connections):
        yield reader.deserialize(raw, connection.msgtype)


def _key(message: Any) -> tuple[int, str]:
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec, message.header.frame_id
