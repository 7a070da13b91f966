# SPDX-License-Identifier: MIT
"""COCO output of `xmem-ros track`: file names of images."""

from __future__ import annotations

import json

import cv2
import pytest
from needs import require

require('pycocotools')

from bag_files import image_items, scene, write_bag
from scene_files import save_mask

from xmem_ros.cli.main import main

COUNT = 5


@pytest.fixture(scope='module')
def frames():
    return scene(COUNT)


def images_of(source, out, *more):
    """Return the images of coco.json; the default seed is on image 0."""
    options = ['--out', out, '--size', 64, '--device', 'cpu', '--format', 'coco', *more]
    assert main([str(part) for part in ['track', source, *options]]) == 0
    coco = json.loads((out / 'coco.json').read_text())
    known = {image['id'] for image in coco['images']}
    assert {annotation['image_id'] for annotation in coco['annotations']} <= known
    return coco['images']


@pytest.mark.parametrize('more', [(), ('--format', 'ytvos')], ids=['alone', 'with ytvos'])
def test_images_of_a_folder_have_the_names_of_their_files(frames, tmp_path, more):
    (tmp_path / 'walk').mkdir()
    for index, (frame, _) in enumerate(frames):
        name = f'img{index:03d}{[".png", ".jpg", ".JPEG"][index % 3]}'
        assert cv2.imwrite(str(tmp_path / 'walk' / name), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    save_mask(tmp_path / 'mask.png', frames[0][1])
    images = images_of(tmp_path / 'walk', tmp_path / 'out', '--seed', tmp_path / 'mask.png', *more)
    assert sorted(image['file_name'] for image in images) == sorted(file.name for file in (tmp_path / 'walk').iterdir())


@pytest.fixture
def bag(frames, tmp_path):
    save_mask(tmp_path / 'mask.png', frames[2][1])
    return write_bag(tmp_path / 'bag', image_items(frames))


def test_images_of_a_bag_refer_to_the_files_written_for_youtube_vos(bag, tmp_path):
    out = tmp_path / 'out'
    images = images_of(bag, out, '--seed', tmp_path / 'mask.png', '--at', 2, '--format', 'ytvos')
    assert [image['id'] for image in images] == [2, 3, 4]
    for image in images:
        height, width = cv2.imread(str(out / image['file_name'])).shape[:2]
        assert (image['height'], image['width']) == (height, width)


def test_images_of_a_bag_are_named_by_their_index_if_no_files_are_written(bag, tmp_path):
    images = images_of(bag, tmp_path / 'out', '--seed', tmp_path / 'mask.png', '--at', 2)
    assert [image['file_name'] for image in images] == [f'{index:06d}.jpg' for index in range(COUNT)]
    assert [image['id'] for image in images] == list(range(COUNT))
