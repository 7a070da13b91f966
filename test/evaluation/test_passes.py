# SPDX-License-Identifier: MIT
"""Test-time options: mirroring, sizes and their merge, memory, rates, processes, killed runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from needs import require
from PIL import Image
from published_layouts import LENGTH, SIZE, clip, davis, five
from scene_files import save_mask, save_sequence, save_untrained_weights

from xmem_ros import work_folder
from xmem_ros.cli.main import main
from xmem_ros.errors import OutputError, ParameterError, SeedError
from xmem_ros.evaluation import probabilities as kept
from xmem_ros.evaluation.runner import evaluate
from xmem_ros.evaluation.settings import Run, Settings
from xmem_ros.evaluation.speed import measure
from xmem_ros.media import read_image, read_mask
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.config import XMEM
from xmem_ros.tracker import Tracker, TrackerConfig
from xmem_ros.tracker.geometry import FrameGeometry, image_to_tensor
from xmem_ros.weights.checkpoint import load_network

require('vos_benchmark')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(save_untrained_weights(tmp_path_factory.mktemp('weights') / 'untrained.safetensors'))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('davis')
    davis(root)
    return root


def run(root, weights, output, **options):
    options = {'dataset': 'davis2017', 'device': 'cpu', 'progress': False, **options}
    return evaluate(root=root, weights=weights, output=output, **options)


def masks_in(folder):
    return np.stack([read_mask(path) for path in sorted(folder.glob('*.png'))])


def tracked(root, weights, *, size, flip=False):
    """Track a sequence directly; return the probabilities of every frame at the 480p size.

    flip: mirror the frames, and mirror the probabilities back.
    """
    part = root / 'trainval'
    config = TrackerConfig(size=size, precision='float32', max_objects=2, memory=MemoryConfig().published())
    tracker = Tracker(load_network(Path(weights)), config, 'cpu')
    way = slice(None, None, -1 if flip else 1)
    seed = read_mask(part / 'Annotations' / 'Full-Resolution' / 'a' / '00000.png')[:, way]
    found = []
    for number, path in enumerate(sorted((part / 'JPEGImages' / 'Full-Resolution' / 'a').iterdir())):
        seeds = {} if number else {str(value): seed == value for value in (1, 2)}
        frame = np.ascontiguousarray(read_image(path)[:, way])
        result = tracker.step(frame, seeds, last=number == LENGTH - 1, probabilities=True, output_size=SIZE)
        found.append(result.probabilities[:, :, way])
    return np.stack(found)


# --- preprocessing


def test_images_are_normalised_and_scaled_without_antialiasing():
    # Imported here: it takes seconds, and every worker of pytest imports this file.
    from torchvision.transforms import InterpolationMode, Normalize, Resize, ToTensor

    image = Image.fromarray(clip(LENGTH, 2)[3][0])
    published = Resize(48, InterpolationMode.BILINEAR, antialias=False)(
        Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(ToTensor()(image))
    )
    frame = np.array(image)
    geometry = FrameGeometry.of(frame.shape[:2], 48)
    left, _, top, _ = geometry.padding
    ours = image_to_tensor(frame, geometry, torch.device('cpu'))[0]
    height, width = geometry.working_size
    assert published.shape == (3, height, width)
    # float32 carries 24 bits; values are below 3
    torch.testing.assert_close(ours[:, top : top + height, left : left + width], published, rtol=0, atol=3e-6)
    # antialiasing gives another image, so the check above can fail
    smooth = Resize(48, InterpolationMode.BILINEAR, antialias=True)(
        published.new_tensor(np.array(image)).permute(2, 0, 1)
    )
    assert not torch.allclose(smooth[0] / 255, published[0] * 0.229 + 0.485, atol=1e-2)


# --- mirrored, and several sizes


def test_a_mirrored_pass_tracks_mirrored_frames_and_mirrors_the_masks_back(tmp_path, root, weights):
    run(root, weights, tmp_path / 'out', size=64, flip=True)
    expected = tracked(root, weights, size=64, flip=True).argmax(1)
    np.testing.assert_array_equal(masks_in(tmp_path / 'out' / 'a'), expected)
    assert (expected != tracked(root, weights, size=64).argmax(1)).any()


@pytest.mark.parametrize(('flip', 'names'), [(False, ['64p', '96p']), (True, ['64p', '64p_flip', '96p', '96p_flip'])])
def test_several_sizes_are_merged_by_the_sum_of_their_8_bit_probabilities(tmp_path, root, weights, flip, names):
    result = run(root, weights, tmp_path / 'out', scales=(64, 96), flip=flip, scores=tmp_path / 'scores')
    assert sorted(path.name for path in (tmp_path / 'scores').iterdir()) == sorted(names)
    assert (result['size'], result['flip']) == ([64, 96], flip)
    total = np.zeros((LENGTH, 3, *SIZE), int)
    for name in names:
        expected = tracked(root, weights, size=int(name[:2]), flip=name.endswith('flip'))
        expected = (expected * 255).astype(np.uint8)  # truncated
        stored = [kept.read(tmp_path / 'scores' / name / 'a' / f'{stem}.png') for stem in five(range(LENGTH))]
        assert all(values == [0, 1, 2] for _, values in stored)
        np.testing.assert_array_equal(np.stack([planes for planes, _ in stored]), expected)
        total += expected
    np.testing.assert_array_equal(masks_in(tmp_path / 'out' / 'a'), total.argmax(1))


def test_probabilities_are_removed_after_the_merge_by_default(tmp_path, root, weights):
    run(root, weights, tmp_path / 'out', scales=(64, 96))
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a', 'finished.0.jsonl', 'settings.json']
    assert len(masks_in(tmp_path / 'out' / 'a')) == LENGTH


def test_finished_sequences_are_tracked_again_if_probabilities_are_requested(tmp_path, root, weights):
    run(root, weights, tmp_path / 'out', scales=(64, 96))
    masks = masks_in(tmp_path / 'out' / 'a')
    run(root, weights, tmp_path / 'out', scales=(64, 96), scores=tmp_path / 'scores')
    stored = sorted(path.relative_to(tmp_path / 'scores') for path in (tmp_path / 'scores').rglob('*.png'))
    assert stored == [Path(name) / 'a' / f'{stem}.png' for name in ('64p', '96p') for stem in five(range(LENGTH))]
    np.testing.assert_array_equal(masks_in(tmp_path / 'out' / 'a'), masks)
    notes = tmp_path / 'out' / 'finished.0.jsonl'
    before = notes.read_text()
    run(root, weights, tmp_path / 'out', scales=(64, 96), scores=tmp_path / 'scores')
    assert notes.read_text() == before  # nothing was tracked again


@pytest.mark.parametrize('scales', [(480, 64), (96, 480)])
def test_passes_with_different_objects_are_refused_before_tracking(tmp_path, weights, scales):
    masks = davis(tmp_path) / 'Annotations'
    large = masks / 'Full-Resolution' / 'a' / '00000.png'
    labels = read_mask(large)
    save_mask(large, labels * (labels == 1))
    with pytest.raises(SeedError, match=r'Full-Resolution/a/00000\.png: shows no object 2, .*480p/a/00000\.png does'):
        run(tmp_path, weights, tmp_path / 'out', scales=scales)
    assert not (tmp_path / 'out').exists()


def test_leftovers_of_a_killed_run_are_removed(tmp_path, root, weights):
    run(root, weights, tmp_path / 'out', scales=(64, 96))
    for name in ('.probabilities.x1y2.part', '.a.x1y2.part'):
        work_folder.make(tmp_path / 'out' / name)
        (tmp_path / 'out' / name / '64p').mkdir()
    theirs = tmp_path / 'out' / '.thesis.part' / 'chapter.tex'
    theirs.parent.mkdir()
    theirs.write_text('mine')
    run(root, weights, tmp_path / 'out', scales=(64, 96))
    found = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert found == ['.thesis.part', 'a', 'finished.0.jsonl', 'settings.json']
    assert theirs.read_text() == 'mine'
    assert not (tmp_path / 'out' / 'a' / work_folder.MARK).exists()


def test_other_files_beside_the_masks_are_kept(tmp_path, root, weights):
    run(root, weights, tmp_path / 'out', size=64)
    (tmp_path / 'out' / 'a' / 'notes.txt').write_text('mine')
    (tmp_path / 'out' / 'a' / '00000.png').unlink()
    run(root, weights, tmp_path / 'out', size=64)
    assert (tmp_path / 'out' / 'a' / 'notes.txt').read_text() == 'mine'
    assert (tmp_path / 'out' / 'a' / '00000.png').exists()
    assert not list((tmp_path / 'out').glob('.*'))


def test_the_merge_truncates_and_returns_the_values_of_the_data_set():
    first = np.array([[[0.5]], [[0.4999]], [[0.0]]], np.float32)  # 127, 127, 0
    second = np.array([[[0.4]], [[0.404]], [[0.19]]], np.float32)  # 102, 103, 48
    assert kept.truncate(first).ravel().tolist() == [127, 127, 0]
    assert kept.truncate(second).ravel().tolist() == [102, 103, 48]
    passes = [(kept.truncate(planes), [0, 7, 255]) for planes in (first, second)]
    assert kept.merge(passes).tolist() == [[7]]
    assert kept.merge(passes[:1]).tolist() == [[0]]  # of two equal sums, the first plane wins
    bright = np.full((2, 1, 1), 250, np.uint8)
    bright[1] = 251
    assert kept.merge([(bright, [0, 3])] * 4).tolist() == [[3]]  # sums do not overflow


def test_the_published_multi_scale_example_has_two_passes(tmp_path):
    settings = Settings(dataset='davis2017', root=tmp_path, scales=(720,), flip=True, memory_every=3)
    assert settings.runs(XMEM) == [Run(720, False), Run(720, True)]
    assert settings.tracker_config(Run(720, False), 2).memory_every == 3


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'scales': (480, 480)}, 'a size is repeated'),
        ({'scales': (480,), 'size': 480}, 'cannot be combined'),
        ({'split': 'test'}, 'no split .test.; known: val, test-dev'),
        ({'sparse': True}, 'no sparse version'),
        ({'precision': 'float8'}, 'precision is .float8.'),
        ({'memory_every': 0}, 'memory_every is 0'),
        ({'size': 'large'}, "size is 'large'"),
        ({'memory': 'none'}, 'published or default'),
    ],
)
def test_invalid_and_conflicting_settings_are_refused(tmp_path, options, text):
    with pytest.raises(ParameterError, match=text):
        Settings(dataset='davis2017', root=tmp_path, **options)


# --- memory


def test_memory_options_reach_the_tracker(tmp_path):
    stores = MemoryConfig(
        max_working_frames=7, min_working_frames=3, long_term=False, long_term_elements=500, prototypes=64, top_k=20
    )
    settings = Settings(dataset='generic', root=tmp_path, stores=stores, memory_every=4)
    config = settings.tracker_config(Run(480, False), 1)
    assert config.memory == stores.published()
    assert config.memory_every == 4
    record = settings.record(XMEM)
    assert (record['long_term'], record['working_frames'], record['top_k']) == (False, [3, 7], 20)


def test_the_published_memory_policy_is_the_default(tmp_path):
    config = {
        m: Settings(dataset='generic', root=tmp_path, memory=m).tracker_config(Run(480, False), 1).memory
        for m in ('published', 'default')
    }
    assert (config['published'].usage, config['published'].quotas, config['published'].guard) == ('all', False, False)
    assert config['default'] == MemoryConfig()


# --- rates


def test_the_rate_is_the_number_of_frames_over_the_forward_time(tmp_path, root, weights):
    result = run(root, weights, tmp_path / 'out', size=64)
    (line,) = (tmp_path / 'out' / 'finished.0.jsonl').read_text().splitlines()
    noted = json.loads(line)
    assert noted['frames'] == LENGTH  # warm-up frames do not count
    assert result['fps'] == pytest.approx(LENGTH / noted['seconds'])
    assert result['sequences']['a']['fps'] == result['fps']
    assert 0 < noted['seconds'] < noted['step_seconds']
    assert (result['device'], result['precision']) == ('cpu', 'float32')


def test_the_clock_excludes_reading_and_warm_up(root, weights, monkeypatch):
    from xmem_ros.evaluation.datasets.sequence import Sequence

    read = Sequence.frame

    def slow(self, index):
        time.sleep(0.05)
        return read(self, index)

    monkeypatch.setattr(Sequence, 'frame', slow)
    settings = Settings(dataset='davis2017', root=root, weights=weights, size=64, device='cpu', precision='float32')
    begin = time.monotonic()
    result = measure(settings, progress=False)
    passed = time.monotonic() - begin
    (row,) = result['speed']
    assert row['frames'] == LENGTH
    assert row['seconds'] <= row['step_seconds'] < passed - 0.05 * (LENGTH + 3)
    assert result['fps'] == row['fps'] == pytest.approx(LENGTH / row['seconds'])


def test_the_rate_is_not_measured_with_several_processes(root, weights, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    settings = Settings(dataset='davis2017', root=root, weights=weights, size=64, device='cpu')
    with pytest.raises(ParameterError, match='without torchrun'):
        measure(settings, progress=False)


def test_float32_and_amp_are_both_measured_by_default(root, weights):
    settings = Settings(dataset='davis2017', root=root, weights=weights, size=64, device='cpu')
    rows = measure(settings, progress=False)['speed']
    assert [row['precision'] for row in rows] == ['float32', 'bfloat16']
    assert all(row['device_name'] and row['fps'] > 0 for row in rows)


def test_sequences_tracked_on_another_machine_do_not_count_in_the_rate(tmp_path, weights):
    for name in ('one', 'two'):
        save_sequence(tmp_path, name, frames=5)
    options = {'weights': weights, 'size': 64, 'device': 'cpu', 'output': tmp_path / 'out', 'progress': False}
    here = evaluate('generic', tmp_path, **options)
    notes = tmp_path / 'out' / 'finished.0.jsonl'
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    lines[0] |= {'device': 'cuda', 'device_name': 'Tesla V100', 'seconds': 1e-3}
    notes.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    both = evaluate('generic', tmp_path, **options)
    assert (both['device'], both['fps']) == ('cpu', here['sequences'][lines[1]['sequence']]['fps'])
    assert both['sequences'][lines[0]['sequence']]['fps'] is None
    lines[1] |= {'device': 'cuda', 'device_name': 'Tesla V100'}
    notes.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    elsewhere = evaluate('generic', tmp_path, **options)
    assert elsewhere['device_name'] == 'Tesla V100'
    assert elsewhere['fps'] > here['fps']


# --- several processes, and interrupted runs


def arguments(root, weights, output, *more):
    options = ['--root', root, '--weights', weights, '--output', output, '--size', 64, '--device', 'cpu', *more]
    return ['evaluate', '--dataset', 'generic', *map(str, options)]


@pytest.fixture
def environment():
    """Use one thread, because rounding depends on the number of threads."""
    path = [str(Path(__file__).parents[2]), os.environ.get('PYTHONPATH', '')]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(path)}
    torch.set_num_threads(threads)


def read_json(path):
    return json.loads(path.read_text())


def test_two_processes_share_the_sequences_and_give_the_scores_of_one(tmp_path, weights, environment):
    for name, frames in (('long', 8), ('short', 5), ('other', 6)):
        save_sequence(tmp_path, name, frames=frames)
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m', 'xmem_ros.cli.main']
    assert main(arguments(tmp_path, weights, tmp_path / 'one', '--json', tmp_path / 'one.json')) == 0
    done = subprocess.run(
        [sys.executable, *torchrun, *arguments(tmp_path, weights, tmp_path / 'two', '--json', tmp_path / 'two.json')],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    single, both = read_json(tmp_path / 'one.json'), read_json(tmp_path / 'two.json')
    assert single['processes'] == 1
    assert both['processes'] == 2
    assert {name: scores['J&F'] for name, scores in both['sequences'].items()} == {
        name: scores['J&F'] for name, scores in single['sequences'].items()
    }
    assert both['J&F'] == single['J&F']
    shares = [
        [
            json.loads(line)['sequence']
            for line in (tmp_path / 'two' / f'finished.{rank}.jsonl').read_text().splitlines()
        ]
        for rank in (0, 1)
    ]
    assert shares == [['long'], ['other', 'short']]
    assert done.stdout.count('all objects') == 1


def test_a_killed_run_continues_with_the_unfinished_sequences(tmp_path, weights, environment):
    save_sequence(tmp_path, 'first', frames=5)
    save_sequence(tmp_path, 'second', frames=6)
    frames = tmp_path / 'JPEGImages' / 'second'
    for number in range(6, 400):
        (frames / f'{number:05}.jpg').symlink_to(f'{number % 6:05}.jpg')
    process = subprocess.Popen(
        [sys.executable, '-m', 'xmem_ros.cli.main', *arguments(tmp_path, weights, tmp_path / 'out')],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    begun = '.second.*.part/00003.png'
    until = time.monotonic() + 120
    while not list((tmp_path / 'out').glob(begun)) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list((tmp_path / 'out').glob(begun))
    assert not (tmp_path / 'out' / 'second').exists()
    when = {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'out' / 'first').iterdir()}
    assert len(when) == 5
    for path in sorted(frames.iterdir())[6:]:  # the rest of the second sequence may be short
        path.unlink()
    assert main(arguments(tmp_path, weights, tmp_path / 'out', '--json', tmp_path / 'out.json')) == 0
    result = read_json(tmp_path / 'out.json')
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'out' / 'first').iterdir()} == when
    assert len(list((tmp_path / 'out' / 'second').iterdir())) == 6
    assert not list((tmp_path / 'out').glob('.second.*'))
    assert all(scores['fps'] for scores in result['sequences'].values())


def test_a_full_disk_is_reported_and_finished_sequences_are_kept(tmp_path, weights, monkeypatch):
    from xmem_ros.evaluation import output

    save_sequence(tmp_path, 'first', frames=5)
    save_sequence(tmp_path, 'second', frames=5)
    write = output.write_labels

    def full(path, labels):
        if path.parent.name.startswith('.second.') and path.stem == '00002':
            raise OSError(28, 'No space left on device')
        write(path, labels)

    monkeypatch.setattr(output, 'write_labels', full)
    options = {'weights': weights, 'size': 64, 'device': 'cpu', 'output': tmp_path / 'out', 'progress': False}
    with pytest.raises(
        OutputError, match=r'second\.\w+\.part/00002\.png: cannot be written \(No space left on device\)'
    ):
        evaluate('generic', tmp_path, **options)
    assert len(list((tmp_path / 'out' / 'first').iterdir())) == 5
    assert not [path for path in (tmp_path / 'out').iterdir() if 'second' in path.name]
    monkeypatch.setattr(output, 'write_labels', write)
    assert len(evaluate('generic', tmp_path, **options)['sequences']) == 2
