# SPDX-License-Identifier: MIT
"""Footage from folders: layouts, masks, faults that are named, and footage held back."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from xmem_ros.training.data import read_data
from xmem_ros.training.footage import Budget, FootageError, read_stills, read_videos, still_labels


def test_faults_in_the_data_are_refused_by_file(data: Path, small, tmp_path: Path) -> None:
    with pytest.raises(FootageError, match='JPEGImages/SEQ'):
        read_videos(data / 'stills', 256)
    with pytest.raises(FootageError, match='no sequence nothing to leave out; its sequences are scene'):
        read_data(small(leave_out=('nothing',)), data)
    with pytest.raises(FootageError, match=r'nowhere: no such folder; `videos` are relative to the data folder'):
        read_data(small(videos=('nowhere',)), data)
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'images' / 'a.jpg').write_bytes(b'no image')
    with pytest.raises(FootageError, match=r'a\.jpg: an image without a mask; a\.png is missing'):
        read_stills(tmp_path, 256)
    cv2.imwrite(str(tmp_path / 'masks' / 'a.png'), np.zeros((4, 4), np.uint8))
    with pytest.raises(FootageError, match=r'a\.jpg: not a readable image'):
        read_stills(tmp_path, 256)
    with pytest.raises(FootageError, match=r'a\.jpg: not a readable image'):
        read_stills(tmp_path, 256, Budget(0))  # also if footage is not kept in memory
    (tmp_path / 'masks' / 'b.png').write_bytes(b'')
    (tmp_path / 'images' / 'a.jpg').unlink()
    with pytest.raises(FootageError, match=r'a\.png: a mask without an image'):
        read_stills(tmp_path, 256)


def test_a_mask_without_an_image_is_refused_and_a_frame_without_a_mask_is_skipped(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path / 'video')
    (tmp_path / 'video/Annotations/scene/00003.png').unlink()
    (video,) = read_videos(tmp_path / 'video', 256)
    assert len(video.frames) == 11
    (tmp_path / 'video/JPEGImages/scene/00005.png').unlink()
    with pytest.raises(FootageError, match=r'00005\.png: a mask without an image'):
        read_videos(tmp_path / 'video', 256)


@pytest.mark.parametrize('inner', ['480p', ''])
@pytest.mark.parametrize('outer', ['train', ''])
def test_videos_are_read_from_all_layouts_of_the_data_sets(data: Path, tmp_path: Path, inner: str, outer: str) -> None:
    for kind in ('JPEGImages', 'Annotations'):
        shutil.copytree(data / 'video' / kind, tmp_path / outer / kind / inner, dirs_exist_ok=True)
    (video,) = read_videos(tmp_path, 64)
    assert video.name == 'scene'
    assert min(video.frames[0].shape[:2]) == 64
    assert video.labels[0].shape == video.frames[0].shape[:2]
    assert set(np.unique(video.labels[0])) == {0, 1, 2}


def test_stills_are_read_from_pictures_beside_their_masks(data: Path, tmp_path: Path) -> None:
    for number in range(2):
        frame = cv2.imread(str(data / f'stills/images/{number}.png'))
        cv2.imwrite(str(tmp_path / f'{number}.jpg'), frame)
        shutil.copy(data / f'stills/masks/{number}.png', tmp_path / f'{number}.png')
    stills = read_stills(tmp_path, 256)
    assert [still.name for still in stills] == [f'{tmp_path.name}/0', f'{tmp_path.name}/1']
    assert all(still.labels[0].max() == 1 for still in stills)
    (tmp_path / 'class').mkdir()
    for name in ('0.jpg', '0.png'):
        shutil.copy(tmp_path / name, tmp_path / 'class' / name)
    assert len(read_stills(tmp_path, 256)) == 3


@pytest.mark.parametrize(
    ('values', 'expected'),
    [((0, 255), (0, 1)), ((0, 100, 200), (0, 0, 1)), ((0, 1, 2, 255), (0, 1, 2, 0)), ((0, 3, 99, 255), (0, 0, 0, 1))],
)
def test_masks_of_stills_hold_ids_or_one_soft_object(values: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert still_labels(np.array([values], np.uint8)).tolist() == [list(expected)]


def test_void_is_decided_for_the_whole_sequence(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path, dirs_exist_ok=True)
    mask = tmp_path / 'Annotations/scene/00004.png'
    cv2.imwrite(str(mask), np.where(cv2.imread(str(mask), 0) > 0, 255, 0).astype(np.uint8))
    (video,) = read_videos(tmp_path, 256)
    assert not video.labels[4].any()
    for path in mask.parent.iterdir():
        cv2.imwrite(str(path), (cv2.imread(str(path), 0) > 0).astype(np.uint8) * 255)
    (video,) = read_videos(tmp_path, 256)
    assert all(set(np.unique(video.labels[i])) == {0, 1} for i in range(12))
    cv2.imwrite(str(mask), np.full((96, 144), 7, np.uint8))
    with pytest.raises(FootageError, match=r'00004\.png: value 7 in a sequence whose first mask holds only 0 and 255'):
        read_videos(tmp_path, 256)


def test_masks_of_another_aspect_ratio_and_masks_without_a_sequence_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path, dirs_exist_ok=True)
    cv2.imwrite(str(tmp_path / 'Annotations/scene/00004.png'), np.zeros((20, 300), np.uint8))
    with pytest.raises(FootageError, match=r'00004\.png: the mask is 300×20 px, its image 144×96'):
        read_videos(tmp_path, 256)
    (tmp_path / 'Annotations' / 'other').mkdir()
    with pytest.raises(FootageError, match='other: masks without images'):
        read_videos(tmp_path, 256)


def test_a_truncated_image_is_refused_before_the_first_step(data: Path, small, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path / 'video')
    file = tmp_path / 'video/JPEGImages/scene/00007.png'
    file.write_bytes(file.read_bytes()[:-2000])
    for room in (0, 1000):
        with pytest.raises(FootageError, match=r'00007\.png: not a readable image'):
            read_data(small(stills=(), cache_mb=room), tmp_path)


def test_a_subset_selects_the_sequences(data: Path, small, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path / 'video')
    for kind in ('JPEGImages', 'Annotations'):
        shutil.copytree(tmp_path / 'video' / kind / 'scene', tmp_path / 'video' / kind / 'val')
    (tmp_path / 'train.txt').write_text('scene\n')
    config = small(stills=(), subsets=('train.txt',), strides=(5,), repeat=(2,))
    (video,) = read_data(config, tmp_path).videos
    assert (video.name, video.stride, video.weight) == ('scene', 5, 2)
    (tmp_path / 'train.txt').write_text('scene nothing\n')
    with pytest.raises(FootageError, match='no sequence nothing'):
        read_data(config, tmp_path)


def test_footage_on_disk_is_the_same_as_in_memory(data: Path) -> None:
    (kept,), (left,) = read_videos(data / 'video', 64), read_videos(data / 'video', 64, budget=Budget(0))
    assert all(np.array_equal(a, b) for a, b in zip(kept.frames, left.frames, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(kept.labels, left.labels, strict=True))


def test_the_end_of_each_video_can_be_held_back(data: Path, small) -> None:
    found = read_data(small(hold_back=0.25), data)
    assert len(found.videos[0].frames) == 9
    assert [(held.name, len(held.frames)) for held in found.held] == [('scene (end)', 3)]
    (whole,) = read_videos(data / 'video', 256)
    assert np.array_equal(found.held[0].frames[0], whole.frames[9])
