# SPDX-License-Identifier: MIT
"""Likeness thresholds: replay, choice, and storage in weights files."""

import dataclasses
import logging
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import TINY

from xmem_ros.cli.main import main
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import WeightsError
from xmem_ros.memory.gallery import COLOURS, confidence
from xmem_ros.network.config import LikenessThresholds
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker import Tracker
from xmem_ros.training.calibration import Looks, calibrate, hidden_by
from xmem_ros.training.footage import Footage, FootageError
from xmem_ros.weights.checkpoint import load_network, save_network
from xmem_ros.weights.files import find_weights

THRESHOLDS = LikenessThresholds(0.25, 0.6)


def looks(*angles: float, nearby: bool = False) -> Looks:
    """Make appearances with features at these angles [rad] and the same colours."""
    feature = torch.stack([torch.tensor([torch.cos(torch.tensor(a)), torch.sin(torch.tensor(a))]) for a in angles])
    colours = torch.zeros(len(angles), COLOURS)
    colours[:, 0] = 1
    return Looks('it', torch.cat([feature, colours], 1), torch.full((len(angles),), nearby))


def rendered(seed: int) -> Footage:
    scene = RenderedScene((96, 144), 21, 2, seed=seed)
    frames = [scene[number] for number in range(21)]
    return Footage(f'scene {seed}', [frame for frame, _ in frames], [labels for _, labels in frames])


def test_an_object_that_turns_slowly_stays_visible() -> None:
    assert not hidden_by(looks(0, 0.4, 0.8, 1.2, 1.6), 0.9).any()  # cos 0.4 is 0.92, cos 1.6 below 0


def test_hidden_appearances_are_not_remembered() -> None:
    assert hidden_by(looks(0, 1.0, 1.1), 0.9).tolist() == [True, True]


def test_nearby_appearances_may_differ_more() -> None:
    far, near = (hidden_by(looks(0, 0.6, nearby=nearby), 0.9) for nearby in (False, True))  # cos 0.6 is 0.83
    assert far.all()
    assert not near.any()


def test_thresholds_hide_few_frames_of_an_object_and_accept_few_of_others() -> None:
    found = calibrate(load_network(find_weights('compact')), [rendered(0), rendered(1)])
    assert found.hidden <= 0.1
    assert found.let_through <= 0.2
    assert found.thresholds.unlike < found.thresholds.sure


def test_footage_of_one_frame_is_refused() -> None:
    footage = rendered(0)
    with pytest.raises(FootageError, match='label at least one object in two frames'):
        calibrate(XMemNetwork(TINY).eval(), [footage.part('short', 0, 1)])


def test_confidence_rises_from_the_lower_threshold_to_the_upper() -> None:
    likeness = torch.tensor([0.2, 0.425, 0.7])
    elsewhere = confidence(likeness, torch.tensor([False] * 3), THRESHOLDS)
    assert elsewhere.tolist() == pytest.approx([0, 0.5, 1], abs=1e-6)
    assert confidence(likeness, torch.tensor([True] * 3), THRESHOLDS)[1] > 0.5
    assert confidence(likeness, torch.tensor([False] * 3), None).tolist() == [1, 1, 1]


def test_a_weights_file_stores_its_thresholds(tmp_path: Path) -> None:
    network = XMemNetwork(dataclasses.replace(TINY, likeness=THRESHOLDS))
    save_network(network, tmp_path / 'w.safetensors')
    assert load_network(tmp_path / 'w.safetensors').config.likeness == THRESHOLDS
    torch.save(network.state_dict(), tmp_path / 'w.pth')
    assert load_network(tmp_path / 'w.pth').config.likeness is None


@pytest.mark.parametrize(
    'metadata',
    [
        {'likeness_unlike': '0.5'},
        {'likeness_unlike': '0.5', 'likeness_sure': '0.4'},
        {'likeness_unlike': 'nan', 'likeness_sure': '0.4'},
        {'likeness_unlike': 'low', 'likeness_sure': 'high'},
    ],
)
def test_invalid_thresholds_are_refused(metadata: dict[str, str], tmp_path: Path) -> None:
    save_file(XMemNetwork(TINY).state_dict(), tmp_path / 'w.safetensors', metadata=metadata)
    with pytest.raises(WeightsError, match=r'w\.safetensors: its metadata must hold .* weights calibrate'):
        load_network(tmp_path / 'w.safetensors')


def test_weights_without_thresholds_run_with_the_published_policy_and_log_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(XMemNetwork(TINY).eval(), device='cpu')
    assert tracker.config.memory == tracker.config.memory.published()
    assert 'no likeness thresholds' in caplog.text


def test_bundled_weights_run_with_the_default_policy(caplog: pytest.LogCaptureFixture) -> None:
    for name in ('compact', 'compact-permissive'):
        assert Tracker.from_weights(name, device='cpu').config.memory.guard
    assert not caplog.text


def test_the_command_stores_thresholds_beside_the_same_weights(tmp_path: Path, capsys) -> None:
    footage = rendered(0)
    for folder in ('JPEGImages/a', 'Annotations/a'):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(0, 21):
        cv2.imwrite(str(tmp_path / f'JPEGImages/a/{number:02}.png'), footage.frames[number][:, :, ::-1])
        cv2.imwrite(str(tmp_path / f'Annotations/a/{number:02}.png'), footage.labels[number])
    before = XMemNetwork(TINY)
    save_network(before, tmp_path / 'w.safetensors')
    before = load_network(tmp_path / 'w.safetensors')
    command = ['weights', 'calibrate', str(tmp_path / 'w.safetensors'), '--videos', str(tmp_path)]
    assert main([*command, '--out', str(tmp_path / 'w.safetensors')]) == 0
    after = load_network(tmp_path / 'w.safetensors')
    assert after.config.likeness is not None
    assert f'unlike {after.config.likeness.unlike:.2f}' in capsys.readouterr().out
    assert all(
        torch.equal(a, b) for a, b in zip(after.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert main([*command, '--out', str(tmp_path / 'w.pth')]) != 0
