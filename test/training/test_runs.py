# SPDX-License-Identifier: MIT
"""Training runs: resumed, by several processes, from weights, with frozen parts."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import TINY_LITE, TINY_XMEM, save_untrained

from xmem_ros.cli.main import main
from xmem_ros.errors import ParameterError, WeightsError
from xmem_ros.training.config import read_config
from xmem_ros.training.loop import Trainer
from xmem_ros.weights.checkpoint import load_network


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, as the started processes have: rounding depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures('one_thread')
def test_a_killed_run_resumes_with_identical_results(data: Path, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    file.write_text(
        f'start_from: {tiny}\nvideos: [video]\nstills: [stills]\niterations: 6\nbatch: 2\nwarmup: 1\n'
        'save_every: 2\nworkers: 1\nprecision: float32\nclips: {size: 48, frames: 3}\n'
    )

    def arguments(out: str) -> list[str]:
        options = ['--config', str(file), '--data', str(data), '--out', str(tmp_path / out), '--device', 'cpu']
        return ['train', *options]

    assert main(arguments('whole')) == 0
    process = subprocess.Popen(
        [sys.executable, '-m', 'xmem_ros.cli.main', *arguments('killed')],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = tmp_path / 'killed' / 'log.jsonl'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count('\n') >= 3):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / 'killed' / 'last.pt').exists()
    assert main(arguments('killed')) == 0
    curves = [
        [(line['iteration'], line['cross_entropy'], line['dice']) for line in map(json.loads, text.splitlines())]
        for text in ((tmp_path / 'whole' / 'log.jsonl').read_text(), log.read_text())
    ]
    assert [line[0] for line in curves[0]] == [1, 2, 3, 4, 5, 6]
    assert curves[0] == curves[1]
    assert all(np.isfinite(line).all() for line in curves[0])
    whole, killed = (torch.load(tmp_path / out / 'last.pt', weights_only=True) for out in ('whole', 'killed'))
    for kind in ('model', 'ema'):
        assert all(torch.equal(value, killed[kind][name]) for name, value in whole[kind].items())


def test_two_processes_train_like_one(data: Path, tmp_path: Path) -> None:
    """Batch norms are fixed, as in `xmem`, so a step does not depend on the number of processes."""
    weights = save_untrained(TINY_XMEM, tmp_path / 'tiny.safetensors')
    file = tmp_path / 'run.yaml'
    file.write_text(
        f'start_from: {weights}\nvideos: [video]\niterations: 2\nbatch: 2\nwarmup: 0\nsave_every: 2\n'
        'workers: 0\nlearning_rate: 1.0e-4\nprecision: float32\nbootstrap: [10, 20, 0.3]\n'
        'clips: {size: 48, frames: 2, objects: 2, paste: 0.5}\n'
    )
    Trainer(read_config(file), data, tmp_path / 'one').run()
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1', '--nproc-per-node', '2']
    command = ['-m', 'xmem_ros.cli.main', 'train', '--config', str(file), '--data', str(data), '--device', 'cpu']
    done = subprocess.run(
        [sys.executable, *launcher, *command, '--out', str(tmp_path / 'two')],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    curves = []
    for name in ('one', 'two'):
        lines = [json.loads(line) for line in (tmp_path / name / 'log.jsonl').read_text().splitlines()]
        assert [line['iteration'] for line in lines] == [1, 2]
        curves.append([(line['cross_entropy'], line['dice'], line['gradient']) for line in lines])
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-3)


def test_a_run_is_resumed_only_with_the_same_settings(data: Path, small, tmp_path: Path) -> None:
    Trainer(small(iterations=2), data, tmp_path).run()
    with pytest.raises(ParameterError, match=r'settings \(different: seed\); choose another folder'):
        Trainer(small(iterations=2, seed=1), data, tmp_path)
    again = Trainer(small(iterations=2, workers=1), data, tmp_path)
    assert again.iteration == 2
    (tmp_path / 'last.pt').write_bytes(b'damaged')
    with pytest.raises(WeightsError, match='remove it to start over'):
        Trainer(small(iterations=2), data, tmp_path)


def test_checkpoints_of_a_run_can_be_used_as_weights(data: Path, small, tmp_path: Path) -> None:
    trainer = Trainer(small(iterations=2, hold_back=0.25, validate_every=1), data, tmp_path)
    trainer.run()
    average = trainer.averaged_network().state_dict()
    loaded = load_network(tmp_path / 'last.pt').state_dict()
    assert all(torch.equal(loaded[name], average[name]) for name in average)
    scores = [json.loads(line) for line in (tmp_path / 'validation.jsonl').read_text().splitlines()]
    best = torch.load(tmp_path / 'best.pt', weights_only=True)
    assert best['iteration'] == max(scores, key=lambda line: line['mean'])['iteration']
    kept = trainer.best_network().state_dict()
    assert all(torch.equal(kept[name], best['ema'][name]) for name in kept)


def test_fine_tuning_prints_before_and_after(data: Path, tmp_path: Path, capsys) -> None:
    preset = Path(__file__).parents[2] / 'config' / 'training' / 'finetune.yaml'
    config = tmp_path / 'smaller.yaml'
    smaller = preset.read_text().replace('size: 192', 'size: 64').replace('batch: 4', 'batch: 2')
    assert smaller.count('size: 64') == smaller.count('batch: 2') == 1
    config.write_text(smaller)
    options = ['--config', str(config), '--videos', str(data / 'video'), '--out', str(tmp_path / 'run')]
    options += ['--iterations', '2', '--device', 'cpu', '--export', str(tmp_path / 'mine.safetensors')]
    assert main(['train', *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(('scene (end)', 'mean'))]
    assert [row[0] for row in rows] == ['scene', 'mean']
    assert all(0 < float(value) <= 100 for row in rows for value in row[-2:])
    assert load_network(tmp_path / 'mine.safetensors').config.key_dim == 48
    assert {'last.pt', 'best.pt', 'validation.jsonl'} <= {path.name for path in (tmp_path / 'run').iterdir()}


def test_a_run_has_the_network_shape_of_its_initial_weights(data: Path, small, tmp_path: Path) -> None:
    weights = save_untrained(TINY_LITE, tmp_path / 'lite.safetensors')
    settings = small(start_from=str(weights), iterations=1)
    trainer = Trainer(settings, data, tmp_path / 'run')
    assert trainer.network.config == TINY_LITE
    trainer.run()
    weights.unlink()
    assert Trainer(settings, data, tmp_path / 'run').network.config == TINY_LITE


def test_frozen_parts_do_not_change(data: Path, small, tmp_path: Path) -> None:
    trainer = Trainer(small(frozen=('key_encoder', 'decoder.pred')), data, tmp_path / 'run')
    before = copy.deepcopy(trainer.network.state_dict())
    trainer.run()
    moved = {name for name, tensor in trainer.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in moved if name.startswith(('key_encoder', 'decoder.pred'))]
    assert [name for name in moved if name.startswith('value_encoder')]
    with pytest.raises(ParameterError, match='no part nothing'):
        Trainer(small(frozen=('nothing',)), data, tmp_path / 'other')
