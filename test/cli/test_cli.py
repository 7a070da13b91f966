# SPDX-License-Identifier: MIT
"""Command line: results, messages and errors."""

import hashlib
import json
import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
from needs import require
from PIL import Image
from scene_files import SIZE, save_frame, save_mask, save_sequence, save_untrained_weights
from video_files import packets, write_video

from xmem_ros.cli.main import OPTIONS, main
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import Setting
from xmem_ros.offline.tracking import OfflineTracker
from xmem_ros.video.clip import Clip
from xmem_ros.video.writer import VideoWriter


def test_every_setting_that_an_error_names_has_an_option():
    assert set(OPTIONS) == set(Setting)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_untrained_weights(tmp_path_factory.mktemp('weights') / 'untrained.safetensors')


@pytest.fixture
def clip(tmp_path):
    """Folder of six frames with two objects; the first mask is Annotations/toys/00000.png."""
    save_sequence(tmp_path, frames=6)
    return tmp_path / 'JPEGImages' / 'toys'


def track(clip, weights, out, *more, seed=None):
    seed = seed or clip.parents[1] / 'Annotations' / 'toys' / '00000.png'
    options = ['--seed', seed, '--out', out, '--weights', weights, '--size', 64, '--device', 'cpu', *more]
    return main([str(part) for part in ['track', clip, *options]])


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def values(path):
    with Image.open(path) as image:
        return np.array(image)


# --- track


def test_track_writes_one_palette_mask_for_each_frame(clip, weights, tmp_path):
    assert track(clip, weights, tmp_path / 'out') == 0
    files = sorted((tmp_path / 'out').iterdir())
    assert [file.name for file in files] == [f'{index:05d}.png' for index in range(6)]
    for file in files:
        with Image.open(file) as image:
            assert (image.mode, image.size) == ('P', SIZE[::-1])
    np.testing.assert_array_equal(values(files[0]), values(tmp_path / 'Annotations' / 'toys' / '00000.png'))


def test_track_writes_the_same_bytes_each_time(clip, weights, tmp_path):
    for name in ('one', 'two'):
        assert track(clip, weights, tmp_path / name, '--overlay') == 0
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two')


def test_track_keeps_the_values_of_the_seed_mask(clip, weights, tmp_path):
    labels = values(tmp_path / 'Annotations' / 'toys' / '00000.png')
    seed = np.array([0, 7, 90], np.uint8)[labels]
    seed[:3] = 255
    save_mask(tmp_path / 'seed.png', seed)
    for name, more, wanted in (('all', [], {0, 7, 90, 255}), ('without', ['--ignore-void'], {0, 7, 90})):
        assert track(clip, weights, tmp_path / name, *more, seed=tmp_path / 'seed.png') == 0
        assert set(np.unique(values(tmp_path / name / '00000.png'))) == wanted
        for file in (tmp_path / name).iterdir():
            assert set(np.unique(values(file))) <= wanted


@pytest.mark.parametrize(('given', 'written'), [(255, 1), (1, 1), (38, 38)])
def test_a_mask_of_one_value_is_one_object(clip, weights, tmp_path, given, written):
    labels = values(tmp_path / 'Annotations' / 'toys' / '00000.png')
    save_mask(tmp_path / 'seed.png', np.where(labels == 1, given, 0).astype(np.uint8))
    assert track(clip, weights, tmp_path / 'out', seed=tmp_path / 'seed.png') == 0
    assert set(np.unique(values(tmp_path / 'out' / '00000.png'))) == {0, written}


def test_track_prints_where_the_results_are_and_no_progress_without_a_terminal(clip, weights, tmp_path, capsys):
    assert track(clip, weights, tmp_path / 'out', '--overlay') == 0
    said = capsys.readouterr()
    overlay = tmp_path / 'out' / 'overlay.mp4'
    assert said.out == f'{tmp_path / "out"}: 6 masks, and {overlay}\n'
    assert overlay.is_file()
    assert said.err == '', 'stderr is no terminal here'
    assert track(clip, weights, tmp_path / 'masks') == 0
    assert capsys.readouterr().out == f'{tmp_path / "masks"}: 6 masks\n'


def test_track_reads_a_video(clip, weights, tmp_path):
    video = tmp_path / 'toys.mp4'
    with VideoWriter(video, 12.5) as writer:
        for frame, _ in RenderedScene(SIZE, frames=6, objects=2):
            writer.write(frame)
    seed = clip.parents[1] / 'Annotations' / 'toys' / '00000.png'
    assert track(video, weights, tmp_path / 'out', '--overlay', seed=seed) == 0
    names = [f'{index:05d}.png' for index in range(6)]
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == [*names, 'overlay.mp4']
    overlay = Clip(tmp_path / 'out' / 'overlay.mp4')
    assert overlay.rate == pytest.approx(12.5)
    frames = [frame for _, frame in overlay]
    assert len(frames) == 6
    plain = next(iter(RenderedScene(SIZE, frames=1, objects=2)))[0]
    shown = values(tmp_path / 'out' / '00000.png') > 0
    assert np.abs(frames[0].astype(int) - plain)[shown].mean() > 20


def test_track_keeps_the_times_of_a_video_of_variable_rate(weights, tmp_path):
    times = [Fraction(0), Fraction(1, 8), Fraction(1), Fraction(3, 2), Fraction(4), Fraction(33, 8)]
    video = write_video(tmp_path / 'film.mkv', times=times, count=len(times))
    options = ['--box', 'it=20,15,18,18', '--at', '2.5', '--out', tmp_path / 'out', '--overlay']
    command = ['track', video, *options, '--weights', weights, '--size', 64, '--device', 'cpu']
    assert main([str(part) for part in command]) == 0
    first = sorted((tmp_path / 'out').glob('*.png'))[3]
    assert (first.name, bool(values(first).any())) == ('00003.png', True), 'one second before the first frame'
    assert not values(tmp_path / 'out' / '00002.png').any()
    overlay = Clip(tmp_path / 'out' / 'overlay.mp4')
    assert [overlay.time_ns(index) for index in range(6)] == [time * 10**9 for time in times]


def test_track_says_how_many_frames_of_a_damaged_video_could_be_read(weights, tmp_path, capsys):
    video = write_video(tmp_path / 'film.mp4')
    data = bytearray(video.read_bytes())
    place, size, *_ = packets(video)[3]
    data[place : place + size] = bytes(size)
    video.write_bytes(data)
    options = ['--box', 'it=8,16,16,16', '--out', tmp_path / 'out', '--weights', weights, '--size', 64]
    assert main([str(part) for part in ['track', video, *options, '--device', 'cpu']]) == 0
    masks = sorted(file.stem for file in (tmp_path / 'out').iterdir())
    assert f'{video}: {len(masks)} of 24 frames could be read' in capsys.readouterr().err
    assert masks[-16:] == [f'{index:05d}' for index in range(8, 24)], 'from the next keyframe on'


def test_results_are_written_to_an_empty_folder_and_a_full_one_is_refused(clip, weights, tmp_path, capsys):
    out = tmp_path / 'out'
    out.mkdir()
    assert track(clip, weights, out) == 0
    before = digests(out)
    assert track(clip, weights, out) == 2
    assert f'{out}: already exists' in capsys.readouterr().err
    assert digests(out) == before


def test_a_damaged_frame_is_left_out_with_a_warning(clip, weights, tmp_path, capsys):
    (clip / '00004.jpg').write_bytes((clip / '00004.jpg').read_bytes()[:-300])
    assert track(clip, weights, tmp_path / 'out') == 0
    err = capsys.readouterr().err
    assert 'warning: image 4 was left out' in err
    assert '00004.jpg: not a readable image' in err
    assert not (tmp_path / 'out' / '00004.png').exists()
    assert not [file for file in tmp_path.iterdir() if 'part' in file.name]


def test_an_interrupted_run_leaves_nothing_behind(clip, weights, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(OfflineTracker, 'step', interrupted)
    assert track(clip, weights, tmp_path / 'out') == 130
    assert 'interrupted' in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ['Annotations', 'JPEGImages']


def jpeg_mask(folder):
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE, 1), np.uint8)
    save_frame(folder / 'seed.jpg', np.repeat(cv2.GaussianBlur(noise, (0, 0), 3)[..., None], 3, 2))
    return folder / 'seed.jpg'


def large_mask(folder):
    save_mask(folder / 'seed.png', np.ones((65, 96), np.uint8))
    return folder / 'seed.png'


def empty_mask(folder):
    save_mask(folder / 'seed.png', np.zeros(SIZE, np.uint8))
    return folder / 'seed.png'


def absent_mask(folder):
    return folder / 'seed.png'


@pytest.mark.parametrize(
    ('make', 'text'),
    [
        (jpeg_mask, 'seed.jpg: not a label image'),
        (
            large_mask,
            "seed.png: image 00000: seed 1 '1' (mask): the mask is 96×65, but the image is 96×64: resize the mask to "
            '96×64',
        ),
        (empty_mask, 'seed.png: the mask shows no object'),
        (absent_mask, 'seed.png: no such mask'),
    ],
)
def test_an_unusable_seed_mask_is_named(clip, weights, tmp_path, capsys, make, text):
    assert track(clip, weights, tmp_path / 'out', seed=make(tmp_path)) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_an_unreadable_clip_is_named(clip, weights, tmp_path, capsys):
    seed = tmp_path / 'Annotations' / 'toys' / '00000.png'
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.mp4').write_text('not a video')
    for name, text in [
        ('absent', 'no such file or folder; give a bag'),
        ('empty', 'no images'),
        ('text.mp4', 'not a video that can be read'),
    ]:
        assert track(tmp_path / name, weights, tmp_path / 'out', seed=seed) == 2
        assert f'{tmp_path / name}: ' in (error := capsys.readouterr().err)
        assert text in error


def test_a_frame_of_another_size_is_left_out_and_named(clip, weights, tmp_path, capsys):
    save_frame(clip / '00003.jpg', np.zeros((80, 96, 3), np.uint8))
    assert track(clip, weights, tmp_path / 'out') == 0
    assert '96×80' in capsys.readouterr().err
    assert not list((tmp_path / 'out').rglob('00003.png'))
    assert list((tmp_path / 'out').rglob('00002.png'))


def test_unknown_weights_and_devices_are_refused(clip, weights, tmp_path, capsys):
    assert track(clip, 'nonsense', tmp_path / 'out') == 2
    assert 'nonsense' in capsys.readouterr().err
    assert track(clip, weights, tmp_path / 'out', '--device', 'abacus') == 2
    assert 'abacus' in capsys.readouterr().err


# --- evaluate


def test_evaluate_prints_a_table_and_writes_the_same_figures_as_json(clip, weights, tmp_path, capsys):
    require('vos_benchmark')
    options = ['--root', tmp_path, '--weights', weights, '--size', 64, '--output', tmp_path / 'out']
    options += ['--json', tmp_path / 'scores' / 'toys.json', '--device', 'cpu']
    assert main(['evaluate', '--dataset', 'generic', *map(str, options)]) == 0
    written = json.loads((tmp_path / 'scores' / 'toys.json').read_text())
    assert {'J', 'F', 'J&F', 'fps', 'sequences'} <= set(written)
    assert {'J', 'F', 'J&F', 'fps', 'objects'} <= set(written['sequences']['toys'])
    assert {'J', 'F', 'J&F'} <= set(written['sequences']['toys']['objects']['1'])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith('all objects'))
    assert row.split()[-3:] == [f'{written[key]:.1f}' for key in ('J&F', 'J', 'F')]


def test_evaluate_names_a_wrong_root(tmp_path, capsys):
    assert main(['evaluate', '--dataset', 'generic', '--root', str(tmp_path), '--output', str(tmp_path / 'out')]) == 2
    assert f'{tmp_path / "JPEGImages"}: not found' in capsys.readouterr().err


# --- usage


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['nonsense'],
        ['track'],
        ['track', 'clip', '--seed', 'mask.png'],
        ['track', 'clip', '--seed', 'mask.png', '--out', 'out', '--size', 'huge'],
        ['evaluate', '--dataset', 'nonsense', '--root', '.', '--output', 'out'],
    ],
)
def test_usage_errors_exit_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert 'usage: xmem-ros' in capsys.readouterr().err


def test_the_module_runs_as_a_program_and_shows_no_traceback(tmp_path):
    command = [
        sys.executable,
        '-m',
        'xmem_ros.cli.main',
        'track',
        str(tmp_path / 'no'),
        '--seed',
        'no.png',
        '--out',
        'no',
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f'xmem-ros track: error: {tmp_path / "no"}: no such file or folder; give a bag (folder, .mcap or .db3 file), a '
        'video file, or a folder of images\n'
    )


@pytest.mark.parametrize('command', ['track', 'evaluate'])
def test_help_names_every_option(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, '--help'])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for option in ('--weights', '--size', '--device'):
        assert option in shown


# --- files of frames


def test_a_clip_yields_names_and_rgb_frames_in_order(tmp_path):
    for name, value in [('10', 200), ('9', 100), ('a', 50)]:
        frame = np.zeros((16, 16, 3), np.uint8)
        frame[..., 0] = value
        cv2.imwrite(str(tmp_path / f'{name}.png'), frame[..., ::-1])
    (tmp_path / '.hidden.png').write_bytes(b'')
    (tmp_path / 'notes.txt').write_text('no image')
    clip = Clip(tmp_path)
    assert len(clip) == 3
    assert [(name, frame[0, 0].tolist()) for name, frame in clip] == [
        ('9', [100, 0, 0]),
        ('10', [200, 0, 0]),
        ('a', [50, 0, 0]),
    ]
