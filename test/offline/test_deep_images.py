# SPDX-License-Identifier: MIT
"""Recordings of more than 8 bits, as of a thermal camera, in bags and folders."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import TOPIC, scene, stamp_of, write_bag
from PIL import Image
from scene_files import save_mask

from xmem_ros.cli.main import main
from xmem_ros.offline.tracking import OfflineTracker, track
from xmem_ros.parameters.table import Parameters
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_files import SeedReader
from xmem_ros.tracker.engine import Engines

PARAMETERS = dataclasses.replace(Parameters(), device='cpu', size=128, max_objects=2)
ENGINES = Engines()
COLDEST, WARMEST = 7000, 7250  # of 65535, as of a thermal camera; in 8 bits all of it is one value


@pytest.fixture(scope='module')
def frames():
    """Ten frames of the rendered scene, far enough apart that the first mask alone does not do."""
    return scene(20)[::2]


@pytest.fixture(scope='module')
def grey(frames):
    """Grey frames, H×W uint8."""
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame, _ in frames]


@pytest.fixture(scope='module')
def thermal(grey):
    """The same frames in the values of a thermal camera, H×W uint16."""
    return [(COLDEST + frame / 255 * (WARMEST - COLDEST)).astype(np.uint16) for frame in grey]


def bag_of(folder, images, encoding):
    items = [
        (TOPIC, stamp_of(index), typestore.image(typestore.header(stamp_of(index), ''), image, encoding))
        for index, image in enumerate(images)
    ]
    return write_bag(folder, items)


@pytest.fixture
def mask(frames, tmp_path):
    """Mask file of the mug in the first frame."""
    save_mask(tmp_path / 'mask.png', (frames[0][1] == 1).astype(np.uint8))
    return tmp_path / 'mask.png'


def tracked(path, mask, **changes):
    reader = SeedReader()
    reader.add_masks(mask)
    with open_recording(path) as recording:
        found = list(track(recording, reader.plan, dataclasses.replace(PARAMETERS, **changes), engines=ENGINES))
    return [item.labels for item in found], found


def overlap(labels, frames):
    truth = [image == 1 for _, image in frames[1:]]
    pairs = zip(labels[1:], truth, strict=True)
    return np.mean([((one == 1) & other).sum() / ((one == 1) | other).sum() for one, other in pairs])


def test_a_thermal_camera_is_followed_as_well_as_a_grey_one(frames, grey, thermal, mask, tmp_path):
    wanted = overlap(tracked(bag_of(tmp_path / 'grey', grey, 'mono8'), mask)[0], frames)
    labels, _ = tracked(bag_of(tmp_path / 'thermal', thermal, '16UC1'), mask)
    assert overlap(labels, frames) > wanted - 0.04  # measured 0.94 and 0.945
    dark, _ = tracked(tmp_path / 'thermal', mask, intensity_range='full')
    assert overlap(dark, frames) < wanted - 0.1  # the fault that the range mends


def test_a_bag_and_a_folder_of_deep_images_give_the_same_masks(thermal, mask, tmp_path):
    (tmp_path / 'frames').mkdir()
    for index, image in enumerate(thermal):
        Image.fromarray(image).save(tmp_path / 'frames' / f'{index}.png')
    bag, _ = tracked(bag_of(tmp_path / 'bag', thermal, 'mono16'), mask)
    folder, _ = tracked(tmp_path / 'frames', mask)
    for one, other in zip(bag, folder, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_resumed_run_keeps_the_range_of_the_first_image(thermal, mask, tmp_path):
    path = bag_of(tmp_path / 'bag', [image + np.uint16(30 * index) for index, image in enumerate(thermal)], '16UC1')
    reader = SeedReader()
    reader.add_masks(mask)
    whole, found = tracked(path, mask)
    with open_recording(path) as recording:
        first = OfflineTracker(recording, reader.plan, PARAMETERS, engines=ENGINES)
        for frame in recording.frames():
            first.step(frame)
            if frame.index == 3:
                break
        saved = first.checkpoint()
        saved = dataclasses.replace(saved, notes=json.loads(json.dumps(saved.notes)))
        second = OfflineTracker(recording, reader.plan, PARAMETERS, engines=ENGINES)
        second.restore(saved)
        for frame in recording.frames(second.index):
            item = second.step(frame)
            np.testing.assert_array_equal(item.labels, whole[frame.index])
            np.testing.assert_array_equal(item.image, found[frame.index].image)


def test_what_was_done_with_the_input_is_said(thermal, frames, tmp_path, capsys):
    (tmp_path / 'frames').mkdir()
    for index, image in enumerate(thermal):
        Image.fromarray(image).save(tmp_path / 'frames' / f'{index + 5}.png')
    soft = cv2.GaussianBlur((frames[0][1] == 1).astype(np.uint8) * 255, (0, 0), 2)
    Image.fromarray(soft).save(tmp_path / 'soft.png')
    given = ['track', tmp_path / 'frames', '--seed', tmp_path / 'soft.png', '--out', tmp_path / 'out']
    assert main([str(part) for part in [*given, '--size', 64, '--device', 'cpu']]) == 0
    said = capsys.readouterr().err
    assert 'the numbers in the names give the order' in said
    assert 'soft.png: it has soft edges' in said
    assert "'mono16' images: values from 7" in said
    assert (np.unique(np.array(Image.open(tmp_path / 'out' / '5.png'))) == [0, 1]).all()
