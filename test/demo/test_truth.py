# SPDX-License-Identifier: MIT
"""Seeds of a demonstration and the truth of its frames."""

import numpy as np
import pytest
from scene_files import save_mask, save_sequence

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.demo.truth import box_seed, mask_seeds, scene_seeds
from xmem_ros.errors import SeedError
from xmem_ros.video.clip import Clip


def test_the_scene_names_its_objects_and_has_the_truth_of_each_frame():
    scene = RenderedScene((64, 96), frames=4)
    seeds, truth = scene_seeds(scene)
    assert [seed.name for seed in seeds] == scene.names
    for index in range(4):
        _, labels = scene[index]
        for k, name in enumerate(scene.names):
            np.testing.assert_array_equal(truth(index)[name] > 0, labels == k + 1)
    np.testing.assert_array_equal(seeds[1].mask, scene[0][1] == 2)


def test_a_box_is_read_as_x_y_width_height():
    frame = np.zeros((48, 64, 3), np.uint8)
    assert box_seed('4,8,60,40', frame).box == (4, 8, 60, 40)


@pytest.mark.parametrize('text', ['5,8,60,40', '4,9,60,40', '-1,0,5,5', '3,3,0,5', '3,3,5,0', '1,2,3', 'a,b,c,d', ''])
def test_a_malformed_box_or_one_outside_the_frame_is_refused(text):
    with pytest.raises(SeedError, match='x,y,width,height'):
        box_seed(text, np.zeros((48, 64, 3), np.uint8))


def test_masks_beside_the_seed_are_the_truth_of_frames_with_their_names(tmp_path):
    scene = save_sequence(tmp_path, frames=4)
    folder = tmp_path / 'Annotations' / 'toys'
    (folder / '00002.png').unlink()
    clip = Clip(tmp_path / 'JPEGImages' / 'toys')
    seeds, truth = mask_seeds(folder / '00000.png', scene[0][0], clip.stems)
    assert [seed.name for seed in seeds] == ['object 1', 'object 2']
    assert truth(0) == {}
    assert truth(2) == {}
    np.testing.assert_array_equal(truth(3)['object 2'] > 0, scene[3][1] == 2)


def test_each_value_is_an_object_and_255_alone_is_object_1(tmp_path):
    frame = np.zeros((48, 64, 3), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[:10], mask[20:30] = 255, 3
    for name in ('0', '1'):
        save_mask(tmp_path / f'{name}.png', mask)
    seeds, truth = mask_seeds(tmp_path / '0.png', frame, ['0', '1'])
    assert [seed.name for seed in seeds] == ['object 3', 'object 255']
    assert truth(1)['object 3'][:, 0].tolist() == [0] * 20 + [1] * 10 + [0] * 18
    assert truth(1)['object 255'][:, 0].tolist() == [1] * 10 + [0] * 38
    mask[20:30] = 0
    for name in ('0', '1'):
        save_mask(tmp_path / f'{name}.png', mask)
    seeds, truth = mask_seeds(tmp_path / '0.png', frame, ['0', '1'])
    assert truth(1)['object'][:, 0].tolist() == [1] * 10 + [0] * 38


def test_a_mask_of_another_size_or_without_an_object_is_refused(tmp_path):
    save_mask(tmp_path / 'mask.png', np.ones((48, 65), np.uint8))
    with pytest.raises(SeedError, match=r'mask\.png: the mask is 65×48 px, the first frame 64×48'):
        mask_seeds(tmp_path / 'mask.png', np.zeros((48, 64, 3), np.uint8), [])
    save_mask(tmp_path / 'mask.png', np.zeros((48, 64), np.uint8))
    with pytest.raises(SeedError, match='shows no object'):
        mask_seeds(tmp_path / 'mask.png', np.zeros((48, 64, 3), np.uint8), [])
