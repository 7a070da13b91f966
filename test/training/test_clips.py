# SPDX-License-Identifier: MIT
"""Clips: objects of the first frame, motion, pasting, absence, and repetition."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from xmem_ros.network.model import IMAGE_MEAN, IMAGE_STD
from xmem_ros.training.clips import Clips
from xmem_ros.training.config import ClipConfig, read_config
from xmem_ros.training.footage import Footage, read_stills, read_videos


def test_clips_are_made_of_the_smallest_pictures() -> None:
    stills = [
        Footage(f'{size}', [np.full((*size, 3), 90, np.uint8)], [np.ones(size, np.uint8)])
        for size in ((1, 1), (2, 3), (1, 40))
    ]
    config = ClipConfig(size=32, region_share=1.0, patch_share=1.0, paste=1.0, bend=1.0, perspective=1.0, small=1.0)
    clips = Clips([], stills, config, 0, 60)
    assert all(torch.isfinite(images).all() for images, _, _ in clips)


def test_clips_have_the_objects_of_the_first_frame_and_are_reproducible(data: Path) -> None:
    clips = Clips(read_videos(data / 'video', 256), read_stills(data / 'stills', 256), ClipConfig(size=48), 5, 20)
    for index in range(20):
        images, labels, valid = clips[index]
        assert images.shape == (3, 3, 48, 48)
        assert labels.shape == (3, 48, 48)
        assert torch.isfinite(images).all()
        assert set(labels.unique().tolist()) <= {0, 1, 2}
        assert [bool((labels[0] == slot).any()) for slot in (1, 2)] == valid.tolist()
    assert all(torch.equal(a, b) for a, b in zip(clips[3], clips[3], strict=True))


def test_footage_without_the_object_can_be_cut_in_after_the_first_frame(data: Path) -> None:
    videos = read_videos(data / 'video', 256)
    videos = videos if len(videos) > 1 else videos + videos[:1]
    other = Footage('other', [np.zeros_like(frame) for frame in videos[0].frames], videos[0].labels)
    always = ClipConfig(size=64, frames=4, still_share=0.0, paste=0.0, absence=1.0, colour=0.0, blur=0.0)
    clips = Clips([videos[0], other], [], always, seed=0, length=20)
    for index in range(20):
        _, labels, _ = clips[index]
        shown = [bool(frame.any()) for frame in labels]
        assert shown[0]
        assert not all(shown)


def test_a_video_is_not_cut_into_its_own_clips(data: Path) -> None:
    config = ClipConfig(size=48, frames=3, still_share=0.5, frame_share=1.0, absence=1.0, paste=0.0)
    (video,) = read_videos(data / 'video', 256)
    clips = Clips([video], [], config, 0, 20)
    assert all(frame.any() for index in range(20) for frame in clips[index][1][:1])
    # frames without labels are those that the object has moved out of
    assert sum(bool(frame.any()) for index in range(20) for frame in clips[index][1]) > 50


@pytest.mark.parametrize(
    'file', sorted((Path(__file__).parents[2] / 'config/training').glob('*.yaml')), ids=lambda p: p.stem
)
def test_the_clips_of_a_preset_have_little_black_border(file: Path) -> None:
    config = read_config(file, videos=('given',) if file.stem == 'finetune' else None)
    side = config.shorter_side
    white = np.full((side, round(side * 16 / 9), 3), 255, np.uint8)
    label = np.zeros(white.shape[:2], np.uint8)
    label[side // 3 : side // 2, side // 3 : side // 2] = 1
    footage = [Footage(str(i), [white] * 40, [label] * 40) for i in range(2)]
    clip_config = dataclasses.replace(config.clips, colour=0.0, blur=0.0, paste=0.0)
    clips = Clips(footage, footage, clip_config, 0, 12)
    black = np.mean([(clips[i][0].amax(1) < 0).float().mean().item() for i in range(12)])
    assert black < 0.2


def test_skips_follow_the_curriculum(data: Path) -> None:
    config = ClipConfig(size=48, skips=((0.0, 2), (0.5, 7)))
    clips = Clips(read_videos(data / 'video', 256), [], config, 0, 100)
    assert [clips._max_skip(share) for share in (0, 0.49, 0.5, 1)] == [2, 2, 7, 7]


def test_objects_can_grow_within_a_clip(data: Path) -> None:
    stills = read_stills(data / 'stills', 256)
    config = ClipConfig(size=64, still_share=1.0, paste=0.0, zoom=(0.25, 0.25), growth_factor=4.0)

    def change(growth: float) -> float:
        """Return the largest ratio of an object's areas within a clip."""
        clips = Clips([], stills, dataclasses.replace(config, growth=growth), 0, 12)
        areas = [(clip[1] == 1).sum((1, 2)) for clip in clips]
        return max(int(area.max()) / max(int(area.min()), 1) for area in areas)

    assert change(0.0) < 4 < change(1.0)


def test_the_area_beyond_a_picture_is_black_or_another_picture(data: Path) -> None:
    stills = read_stills(data / 'stills', 256)
    config = ClipConfig(size=64, still_share=1.0, paste=0.0, growth=1.0, growth_factor=9.0, perspective=0.3)
    black = -torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1) / torch.tensor(IMAGE_STD).view(1, 3, 1, 1)

    def share(backdrop: bool) -> float:
        clips = Clips([], stills, dataclasses.replace(config, backdrop=backdrop), 0, 8)
        return float(np.mean([((clip[0] - black).abs().amax(1) < 1e-3).float().mean() for clip in clips]))

    assert share(False) > 0.05 > share(True)
