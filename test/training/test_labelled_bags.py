# SPDX-License-Identifier: MIT
"""Bags with label images as footage."""

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from xmem_ros.training.bag import read_bag
from xmem_ros.training.data import read_data
from xmem_ros.training.footage import Budget, Footage, FootageError, read_videos


def test_a_labelled_bag_is_read_as_a_video(data: Path, small, tmp_path: Path) -> None:
    (video,) = read_videos(data / 'video', 256)
    write_bag(tmp_path / 'bag', video)
    (bag,) = read_data(small(videos=('bag',), stills=()), tmp_path).videos
    assert len(bag.frames) == len(video.frames) - 1  # the last image has no labels
    assert all(np.array_equal(a, b) for a, b in zip(bag.frames, video.frames, strict=False))
    assert all(np.array_equal(a, b) for a, b in zip(bag.labels, video.labels, strict=False))
    write_bag(tmp_path / 'unlabelled', video, labels=False)
    with pytest.raises(FootageError, match='needs raw images and, on a topic ending in "labels"'):
        read_bag(tmp_path / 'unlabelled', 256)
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'metadata.yaml').write_text('no bag')
    with pytest.raises(FootageError, match='not a readable bag'):
        read_bag(tmp_path / 'broken', 256)
    with pytest.raises(FootageError, match='more footage than cache_mb has room for'):
        read_bag(tmp_path / 'bag', 256, Budget(1000))


def test_ambiguous_image_topics_of_a_bag_are_named(data: Path, tmp_path: Path) -> None:
    (video,) = read_videos(data / 'video', 256)
    write_bag(tmp_path / 'bag', video, other='/rear/image')
    with pytest.raises(FootageError, match='/camera/image and /rear/image have images with the stamps of /xmem/labels'):
        read_bag(tmp_path / 'bag', 256)
    (bag,) = read_bag(tmp_path / 'bag', 256, image_topic='/camera/image')
    assert np.array_equal(bag.frames[0], video.frames[0])


def test_frames_before_the_first_seed_are_skipped(data: Path, tmp_path: Path) -> None:
    (video,) = read_videos(data / 'video', 256)
    labels = [np.zeros_like(video.labels[0])] * 4 + list(video.labels)[4:]
    write_bag(tmp_path / 'bag', Footage('scene', video.frames, labels))
    (bag,) = read_bag(tmp_path / 'bag', 256)
    assert len(bag.frames) == 7
    assert np.array_equal(bag.frames[0], video.frames[4])


def write_bag(path: Path, video: Footage, *, labels: bool = True, other: str = '') -> None:
    """Write a bag of images at 10 Hz; all but the last have a label image of the same stamp."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    kinds = store.types
    with Writer(path, version=9) as writer:
        image = writer.add_connection('/camera/image', 'sensor_msgs/msg/Image', typestore=store)
        second = writer.add_connection(other, 'sensor_msgs/msg/Image', typestore=store) if other else None
        label = writer.add_connection('/xmem/labels', 'sensor_msgs/msg/Image', typestore=store) if labels else None
        for number, (frame, plane) in enumerate(zip(video.frames, video.labels, strict=True)):
            stamp = kinds['builtin_interfaces/msg/Time'](sec=number // 10, nanosec=number % 10 * 100_000_000)
            header = kinds['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')

            def message(pixels: np.ndarray, encoding: str, header: object = header) -> bytes:
                height, width = pixels.shape[:2]
                made = kinds['sensor_msgs/msg/Image'](
                    header, height, width, encoding, 0, pixels[0].nbytes, np.ascontiguousarray(pixels).reshape(-1)
                )
                return store.serialize_cdr(made, 'sensor_msgs/msg/Image')

            writer.write(image, number * 100_000_000, message(frame, 'rgb8'))
            if second is not None:
                writer.write(second, number * 100_000_000, message(frame[:, ::-1], 'rgb8'))
            if label is not None and number < len(video.frames) - 1:
                writer.write(label, number * 100_000_000 + 50_000_000, message(plane, 'mono8'))
