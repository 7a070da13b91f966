# SPDX-License-Identifier: MIT
"""Masks that are not label images: soft edges, lossy compression, photographs."""

import cv2
import numpy as np
import pytest
from PIL import Image

from xmem_ros.errors import SeedError
from xmem_ros.label_images import hard_labels
from xmem_ros.media import read_mask

ROWS, COLUMNS = np.mgrid[:120, :160]
DISC = np.where((ROWS - 60) ** 2 + (COLUMNS - 75) ** 2 < 25**2, np.uint8(255), np.uint8(0))
LABELS = np.zeros((120, 160), np.uint8)
LABELS[DISC > 0], LABELS[10:30, 10:50], LABELS[100:115, 125:150] = 1, 2, 3
GRID = np.kron(np.arange(1, 101, dtype=np.uint8).reshape(10, 10), np.ones((12, 16), np.uint8))
RAMP = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))
TEXTURE = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (120, 160), np.uint8), (0, 0), 2)


def jpeg(image, quality=90):
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


SOFT = {f'smoothed {sigma}': cv2.GaussianBlur(DISC, (0, 0), sigma) for sigma in (0.5, 1, 3, 8)}
SOFT |= {f'scaled {scale}': cv2.resize(DISC, None, fx=scale, fy=scale) for scale in (0.5, 0.37, 1.5, 2, 3)}
SOFT |= {f'jpeg {quality}': jpeg(DISC, quality) for quality in (95, 75, 30)}


@pytest.mark.parametrize('soft', SOFT.values(), ids=SOFT)
def test_a_soft_mask_of_one_object_gets_the_edge_in_the_middle(soft):
    labels, note = hard_labels(soft, lossy=True)
    assert set(np.unique(labels)) == {0, 255}
    assert 'values from 128 on are the object' in note
    truth = cv2.resize(DISC, soft.shape[::-1], interpolation=cv2.INTER_NEAREST)
    overlap = ((labels > 0) & (truth > 0)).sum() / ((labels > 0) | (truth > 0)).sum()
    assert overlap > 0.85  # the smallest disc has a radius of 9 px, known to half a pixel; smoothing shrinks discs


THIN = np.zeros((120, 160), np.uint8)
THIN[40, 10:150], THIN[80, 10:150], THIN[10:110, 20] = 1, 2, 255
RING = LABELS.copy()
RING[(cv2.dilate(DISC, np.ones((5, 5))) > 0) & (DISC == 0)] = 255
KEPT = {'two values': DISC, 'labels': LABELS, 'a hundred objects': GRID, 'thin objects': THIN, 'a void ring': RING}


@pytest.mark.parametrize('mask', KEPT.values(), ids=KEPT)
def test_a_label_image_is_left_unchanged(mask):
    labels, note = hard_labels(mask)
    assert labels is mask
    assert not note


REFUSED = {'smoothed labels': cv2.GaussianBlur(LABELS * 60, (0, 0), 2)}
REFUSED |= {'scaled labels': cv2.resize(LABELS * 80, (320, 240)), 'labels as jpeg': jpeg(LABELS * 80)}
REFUSED |= {'a ramp': RAMP, 'a photograph': TEXTURE}


@pytest.mark.parametrize('mask', REFUSED.values(), ids=REFUSED)
def test_soft_edges_between_several_regions_are_refused_with_the_reason(mask):
    with pytest.raises(SeedError, match=r'not a label image: values such as .*save label images as PNG'):
        hard_labels(mask)


def test_mask_files_of_every_kind_are_read_or_refused(tmp_path):
    def written(name, image, **options):
        Image.fromarray(image).save(tmp_path / name, **options)
        return tmp_path / name

    notes = []
    assert set(np.unique(read_mask(written('soft.png', SOFT['smoothed 3']), notes))) == {0, 255}
    assert set(np.unique(read_mask(written('photo.jpg', DISC), notes))) == {0, 255}
    assert [note.partition(': ')[0] for note in notes] == [str(tmp_path / 'soft.png'), str(tmp_path / 'photo.jpg')]
    with pytest.raises(SeedError, match=r'soft.png: it has soft edges \([0-9]+ values\); save label images as PNG'):
        read_mask(tmp_path / 'soft.png')
    assert (read_mask(written('grey.png', np.repeat(LABELS[..., None], 3, 2))) == LABELS).all()
    assert (read_mask(written('deep.png', LABELS.astype(np.uint16))) == LABELS).all()
    with pytest.raises(SeedError, match=r'colour.png: a colour image; a mask is a palette, grey or one-bit PNG'):
        read_mask(written('colour.png', np.stack([LABELS * 60, LABELS, LABELS], -1)))
    with pytest.raises(SeedError, match=r'ids.png: an image with values from 0 to 3000; a mask is'):
        read_mask(written('ids.png', LABELS.astype(np.uint16) * 1000))
