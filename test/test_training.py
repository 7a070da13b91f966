# SPDX-License-Identifier: MIT
"""Training: losses against hand-computed values, clips, bad folders, and a run that goes on where it was."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import ParameterError
from xmem_ros.training.clips import ClipConfig, Clips
from xmem_ros.training.footage import Footage, FootageError, read_stills, read_videos
from xmem_ros.training.loop import Trainer, TrainingConfig, read_config
from xmem_ros.training.losses import bootstrapped_cross_entropy, dice_loss, hardest_share


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered scene as a video and as stills, in the layouts that training reads."""
    root = tmp_path_factory.mktemp('data')
    scene = RenderedScene((96, 144), 12, 2, seed=0)
    for folder in ('video/JPEGImages/scene', 'video/Annotations/scene', 'stills/images', 'stills/masks'):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        frame, labels = scene[number]
        cv2.imwrite(str(root / f'video/JPEGImages/scene/{number:05}.png'), frame[:, :, ::-1])
        cv2.imwrite(str(root / f'video/Annotations/scene/{number:05}.png'), labels)
        if number < 3:
            cv2.imwrite(str(root / f'stills/images/{number}.png'), frame[:, :, ::-1])
            cv2.imwrite(str(root / f'stills/masks/{number}.png'), (labels == 1).astype(np.uint8) * 255)
    return root


def small(**changes: object) -> TrainingConfig:
    clips = ClipConfig(size=48, frames=3)
    config = TrainingConfig(
        videos=('video',), stills=('stills',), clips=clips, iterations=4, batch=2, warmup=1, workers=0, save_every=2
    )
    return dataclasses.replace(config, **changes)


def test_clips_hold_the_first_frames_objects_and_repeat(data: Path) -> None:
    clips = Clips(read_videos(data / 'video', 256), read_stills(data / 'stills', 256), ClipConfig(size=48), 5, 20)
    for index in range(20):
        images, labels, valid = clips[index]
        assert images.shape == (3, 3, 48, 48)
        assert labels.shape == (3, 48, 48)
        assert torch.isfinite(images).all()
        assert set(labels.unique().tolist()) <= {0, 1, 2}
        assert [bool((labels[0] == slot).any()) for slot in (1, 2)] == valid.tolist()
    assert all(torch.equal(a, b) for a, b in zip(clips[3], clips[3], strict=True))


def test_objects_can_be_cut_away(data: Path) -> None:
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


def test_bootstrapping_takes_the_hardest_pixels() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([0.0, 10.0, 10.0, 10.0])
    labels = torch.ones(1, 1, 4, dtype=torch.int64)
    assert bootstrapped_cross_entropy(logits, labels, 0.25).item() == pytest.approx(np.log(2), abs=1e-5)
    assert bootstrapped_cross_entropy(logits, labels, 1.0).item() == pytest.approx(np.log(2) / 4, abs=1e-3)
    assert [hardest_share(i, 10, 20, 0.2) for i in (0, 15, 30)] == pytest.approx([1, 0.6, 0.2])


def test_dice_counts_only_objects_that_are_there() -> None:
    prob = torch.zeros(1, 2, 1, 4)
    prob[0, 0, 0, :2] = 1
    labels = torch.tensor([[[1, 1, 0, 0]]])
    assert dice_loss(prob, labels, torch.tensor([[True, False]])).item() == pytest.approx(0)
    shifted = torch.tensor([[[0, 1, 1, 0]]])
    # (2·1 + 1) / (2 + 2 + 1)
    assert dice_loss(prob, shifted, torch.tensor([[True, False]])).item() == pytest.approx(1 - 3 / 5)


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(data: Path, tmp_path: Path) -> None:
    whole = Trainer(small(), data, tmp_path / 'whole')
    whole.run()
    half = Trainer(small(), data, tmp_path / 'half')
    half.data.length = 4  # clips of two iterations: it ends with the checkpoint of the second, as if killed then
    half.run()
    resumed = Trainer(small(), data, tmp_path / 'half')
    assert resumed.iteration == 2
    resumed.run()
    assert resumed.iteration == 4
    for name, value in whole.network.state_dict().items():
        assert torch.allclose(value, resumed.network.state_dict()[name], atol=1e-6), name
    lines = [json.loads(line) for line in (tmp_path / 'whole' / 'log.jsonl').read_text().splitlines()]
    assert all(np.isfinite(line['dice']) for line in lines)


def test_faults_in_the_data_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FootageError, match='JPEGImages/SEQ'):
        read_videos(data / 'stills', 256)
    with pytest.raises(FootageError, match='no sequence nothing'):
        read_videos(data / 'video', 256, ['nothing'])
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'images' / 'a.jpg').write_bytes(b'no image')
    with pytest.raises(FootageError, match=r'a\.png is missing'):
        read_stills(tmp_path, 256)
    cv2.imwrite(str(tmp_path / 'masks' / 'a.png'), np.zeros((4, 4), np.uint8))
    with pytest.raises(FootageError, match=r'a\.jpg: not a readable image'):
        read_stills(tmp_path, 256)


def test_unknown_keys_of_a_run_are_named(tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    file.write_text('iteratons: 5\n')
    with pytest.raises(ParameterError, match='unknown key iteratons'):
        read_config(file)
    file.write_text('clips: {sise: 5}\n')
    with pytest.raises(ParameterError, match=r'unknown key clips\.sise'):
        read_config(file)


@pytest.mark.parametrize('name', ['compact_1', 'compact_2', 'compact_3', 'compact_4'])
def test_the_bundled_runs_can_be_read(name: str) -> None:
    config = read_config(Path(__file__).parents[1] / 'config' / 'training' / f'{name}.yaml')
    assert config.network == 'compact'
    assert config.iterations > 0
