# SPDX-License-Identifier: MIT
"""Results for annotation and training tools, read back by the tools' own libraries."""

from __future__ import annotations

import base64
import json

import cv2
import numpy as np
import pytest
from needs import require
from PIL import Image
from scene_files import save_mask

require('rosbags.rosbag2')
require('pycocotools.mask')

from pycocotools import mask as coco

from xmem_ros.cli.main import main
from xmem_ros.offline.sinks.annotations import joined_outline


@pytest.fixture(scope='module')
def results(frames, tmp_path_factory):
    """Folder of results in all formats of tools, with a hole in one object of the seeds."""
    root = tmp_path_factory.mktemp('annotations')
    (root / 'frames').mkdir()
    for index, (image, _) in enumerate(frames[:4]):
        Image.fromarray(image).save(root / 'frames' / f'{index:05d}.png')
    mask = frames[1][1].copy()
    rows, columns = np.nonzero(mask == 1)
    row, column = int(rows.mean()), int(columns.mean())
    mask[row - 1 : row + 2, column - 2 : column + 3] = 0
    save_mask(root / 'mask.png', mask)
    formats = [part for name in ('png', 'yolo', 'labelme', 'mots') for part in ('--format', name)]
    given = ['track', root / 'frames', '--seed', root / 'mask.png', '--at', '1', '--out', root / 'out', *formats]
    assert main([str(part) for part in [*given, '--size', 64, '--device', 'cpu']]) == 0
    return root / 'out'


def values(results, name):
    return np.array(Image.open(results / f'{name}.png'))


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_yolo_has_the_masks_from_the_first_object_on(results):
    require('supervision')
    import supervision

    found = supervision.DetectionDataset.from_yolo(
        str(results / 'yolo' / 'images'),
        str(results / 'yolo' / 'labels'),
        str(results / 'yolo' / 'data.yaml'),
        force_masks=True,
    )
    assert found.classes == ['1', '2']
    names = sorted(path.rpartition('/')[2] for path, _, _ in found)
    assert names == ['00001.jpg', '00002.jpg', '00003.jpg']
    for path, _, detections in found:
        shown = values(results, path.rpartition('/')[2].removesuffix('.jpg'))
        for mask, number in zip(detections.mask, detections.class_id, strict=True):
            assert iou(mask, shown == number + 1) > 0.8  # its polygons are drawn with a rim of half a pixel


def test_labelme_has_a_polygon_for_each_part_or_a_mask_with_holes(results):
    assert not (results / 'labelme' / '00000.json').exists()
    kinds = set()
    for name in ('00001', '00003'):
        about = json.loads((results / 'labelme' / f'{name}.json').read_text())
        shown = values(results, name)
        assert (about['imageHeight'], about['imageWidth']) == shown.shape
        assert (results / 'labelme' / about['imagePath']).is_file()
        drawn = np.zeros_like(shown)
        kinds |= {shape['shape_type'] for shape in about['shapes']}
        for shape in about['shapes']:
            value, points = int(shape['label']), np.array(shape['points'], np.int32)
            if shape['shape_type'] == 'polygon':
                cv2.fillPoly(drawn, [points], value)
            else:
                data = np.frombuffer(base64.b64decode(shape['mask']), np.uint8)
                inside = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) > 0
                (left, top), (right, bottom) = points
                drawn[top : bottom + 1, left : right + 1][inside] = value
        np.testing.assert_array_equal(drawn, shown)
    assert kinds == {'mask', 'polygon'}


def test_mots_has_the_exact_masks_with_class_and_id(results):
    lines = [line.split(' ') for line in (results / 'mots.txt').read_text().splitlines()]
    assert {int(line[0]) for line in lines} == {1, 2, 3}
    for frame, number, kind, height, width, runs in lines:
        decoded = coco.decode({'size': [int(height), int(width)], 'counts': runs.encode()})
        assert int(number) // 1000 == int(kind)
        np.testing.assert_array_equal(decoded, values(results, f'{int(frame):05d}') == int(number) % 1000)
    assert (results / 'mots_classes.txt').read_text() == '1 1\n2 2\n'


def test_one_polygon_encloses_all_parts_and_no_hole():
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (20, 30), 15, 1, -1)
    cv2.circle(mask, (20, 30), 6, 0, -1)
    mask[10:40, 50:70] = 1
    mask[50, 5] = 1  # without an area
    drawn = np.zeros_like(mask)
    cv2.fillPoly(drawn, [joined_outline(mask > 0)], 1)
    mask[50, 5] = 0
    assert iou(drawn > 0, mask > 0) > 0.95
    assert not drawn[30, 20]
    assert not joined_outline(np.zeros((9, 9), bool)).size
