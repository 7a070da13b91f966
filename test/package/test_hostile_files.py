# SPDX-License-Identifier: MIT
"""Odd input and foreign files: clear errors, no traceback, and no lost file."""

from __future__ import annotations

import csv
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from xmem_ros import work_folder
from xmem_ros.cli.main import main
from xmem_ros.media import read_mask
from xmem_ros.outside_text import for_csv, for_log, for_terminal, for_xml, say, without_secrets

COUNT, SIZE = 3, (64, 96)  # frames; H, W in px


def write_frames(folder, stems):
    """Write frames of a moving square, and a mask of the first frame beside the folder."""
    folder.mkdir(parents=True)
    for number, stem in enumerate(stems):
        image = np.full((*SIZE, 3), 40, np.uint8)
        image[20:44, 20 + 6 * number : 44 + 6 * number] = (230, 80, 40)
        Image.fromarray(image).save(folder / f'{stem}.png')
    mask = np.zeros(SIZE, np.uint8)
    mask[20:44, 20:44] = 1
    Image.fromarray(mask).save(folder.parent / 'mask.png')
    return folder


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / 'frames', [f'{index:05d}' for index in range(COUNT)])


def arguments(frames, out, *more, seed='mask.png'):
    given = ['track', frames, '--out', out, '--device', 'cpu', '--size', 64, *more]
    return [str(part) for part in (*given, *(['--seed', frames.parent / seed] if seed else []))]


def refused(capsys, given, *said):
    """Assert that the command ends with exit code 2 and a short message; return that."""
    assert main(given) == 2
    text = capsys.readouterr().err
    assert 'Traceback' not in text
    assert len(text) < 3000
    assert text.isprintable() or text.replace('\n', '').isprintable()
    for part in said:
        assert part in text
    return text


# --- what is not ours stays


def test_an_unmarked_folder_beside_the_destination_is_kept(frames, tmp_path, capsys):
    theirs = tmp_path / '.out.part'
    theirs.mkdir()
    (theirs / 'thesis.tex').write_text('mine')
    for more in ([], ['--restart']):
        refused(capsys, arguments(frames, tmp_path / 'out', *more), 'not made by a run of xmem-ros')
        assert [path.name for path in theirs.iterdir()] == ['thesis.tex']
    assert main(arguments(frames, tmp_path / 'other')) == 0


def test_a_link_beside_the_destination_is_not_followed(frames, tmp_path, capsys):
    theirs = tmp_path / 'theirs'
    theirs.mkdir()
    (theirs / 'thesis.tex').write_text('mine')
    (tmp_path / '.out.part').symlink_to(theirs)
    for more in ([], ['--restart']):
        refused(capsys, arguments(frames, tmp_path / 'out', *more), 'not made by a run of xmem-ros')
        assert [path.name for path in theirs.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize('ours', [False, True])
def test_the_target_of_a_linked_lock_file_is_not_truncated(frames, tmp_path, capsys, ours):
    part = tmp_path / '.out.part'
    if ours:
        work_folder.make(part)
    else:
        part.mkdir()
    (tmp_path / 'thesis.tex').write_text('mine')
    (part / 'lock').symlink_to(tmp_path / 'thesis.tex')
    refused(capsys, arguments(frames, tmp_path / 'out'), '.out.part')
    assert (tmp_path / 'thesis.tex').read_text() == 'mine'


@pytest.mark.parametrize('option', ['--json', '--junit', '--html', '--baseline'])
def test_results_are_not_written_through_a_link(tmp_path, capsys, option):
    write_suite(tmp_path)
    (tmp_path / 'thesis.tex').write_text('mine')
    (tmp_path / 'results').symlink_to('thesis.tex')
    more = ['--update-baseline'] if option == '--baseline' else []
    refused(capsys, ['regress', str(tmp_path / 'suite.yaml'), option, str(tmp_path / 'results'), *more], 'link')
    assert (tmp_path / 'thesis.tex').read_text() == 'mine'
    assert (tmp_path / 'results').is_symlink()


@pytest.mark.parametrize('baseline', ['../planted.json', '{folder}/planted.json', 'link/planted.json'])
def test_a_suite_cannot_name_an_output_file_outside_its_folder(tmp_path, capsys, baseline):
    baseline = baseline.format(folder=tmp_path)
    (tmp_path / 'suite').mkdir()
    (tmp_path / 'suite' / 'link').symlink_to('..')
    write_suite(
        tmp_path / 'suite', f'{{baseline: {baseline}, cases: [{{name: a, input: a, reference: {{topic: /l}}}}]}}'
    )
    given = ['regress', str(tmp_path / 'suite' / 'suite.yaml'), '--dry-run']
    refused(capsys, [*given, '--update-baseline'], 'outside the folder of the suite')
    assert main([*given, '--update-baseline', '--baseline', str(tmp_path / 'planted.json')]) == 0


def test_training_overwrites_only_files_of_training_runs(tmp_path):
    from xmem_ros.errors import OutputError, ParameterError
    from xmem_ros.training.curves import Curves

    log = tmp_path / 'log.jsonl'
    for text in ('2026-01-01 my diary\n', '{"iteration": "1"}\n', '[]\n', '[' * 9999 + '\n'):
        log.write_text(text)
        with pytest.raises(ParameterError, match='does not belong to a training run'):
            Curves(tmp_path, 0)
        assert log.read_text() == text
    log.unlink()
    (tmp_path / 'theirs').mkdir()
    (tmp_path / 'tensorboard').symlink_to('theirs')
    with pytest.raises(OutputError, match='link'):
        Curves(tmp_path, 0)
    assert list((tmp_path / 'theirs').iterdir()) == []
    (tmp_path / 'tensorboard').unlink()
    (tmp_path / 'thesis.tex').write_text('mine\n')
    log.symlink_to('thesis.tex')
    with pytest.raises(OutputError, match='link'):
        Curves(tmp_path, 0)
    assert (tmp_path / 'thesis.tex').read_text() == 'mine\n'


def test_training_checks_its_export_file_before_it_starts(tmp_path, capsys):
    (tmp_path / 'mine.safetensors').symlink_to('elsewhere')
    (tmp_path / 'run.yaml').write_text('videos: [nowhere]')
    given = ['train', '--config', tmp_path / 'run.yaml', '--out', tmp_path / 'out', '--export']
    refused(capsys, [str(part) for part in (*given, tmp_path / 'mine.safetensors')], 'symbolic link')
    assert not (tmp_path / 'out').exists()


def test_a_demonstration_does_not_empty_an_unmarked_folder(tmp_path):
    from xmem_ros.errors import ParameterError

    (tmp_path / 'overlay.mp4').write_text('mine')
    with pytest.raises(ParameterError, match='not made by a demonstration'):
        work_folder.fresh(tmp_path, 'a demonstration')
    assert (tmp_path / 'overlay.mp4').read_text() == 'mine'


# --- YAML


def write_suite(folder, text=None):
    case = {'name': 'a', 'input': 'frames', 'seeds': 'mask.png', 'reference': {'folder': 'masks'}}
    (folder / 'suite.yaml').write_text(json.dumps({'cases': [case]}) if text is None else text)
    return str(folder / 'suite.yaml')


BOMB = '\n'.join(['a0: &a0 [x, x, x, x, x, x, x, x, x]'] + [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 12)])  # fmt: skip  # noqa: E501
HOSTILE_YAML = {
    'digits': 'cases: ' + '9' * 6000,
    'brackets': 'cases: ' + '[' * 20_000,
    'braces': 'cases: ' + '{a: ' * 20_000,
    'dashes': '- ' * 20_000,
    'itself': 'cases: &a [*a]',
    'bomb': BOMB,
    'merge bomb': BOMB.replace('x', '{k: v}').replace('a1: &a1 [', 'a1: &a1 [ '),
    'tag': 'cases: !!python/object/apply:os.system [ls]',
    'odd tag': 'cases: !!int ""',
    'timestamp': 'cases: !!timestamp 2024-02-30',
    'control': 'cases: \x1b[31m',
    'twice': 'cases: 1\ncases: 2',
    'two documents': '---\na: 1\n---\nb: 2',
}


@pytest.mark.parametrize('text', HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml_is_refused_with_file_and_line_by_every_command(frames, tmp_path, capsys, text):
    suite = write_suite(tmp_path, text)
    refused(capsys, ['regress', suite, '--dry-run'], 'suite.yaml: not usable YAML: line ')
    (tmp_path / 'seeds.yaml').write_text(text)
    commands = [
        arguments(frames, tmp_path / 'out', '--params', suite),
        ['train', '--config', suite, '--out', str(tmp_path / 'run'), '--dry-run'],
        arguments(frames, tmp_path / 'out', seed='seeds.yaml'),
    ]
    for given in commands:
        text = refused(capsys, given, '.yaml: ')
        assert 'line ' in text or 'must be a list of entries' in text


def test_a_yaml_date_is_read_as_text(tmp_path, capsys):
    suite = write_suite(tmp_path, 'cases: [{name: 2024-02-30, input: a, reference: {folder: b}}]')
    assert main(['regress', suite, '--dry-run']) == 0
    refused(capsys, ['regress', write_suite(tmp_path, 'cases: 2024-02-30'), '--dry-run'], "cases is '2024-02-30'")


@pytest.mark.parametrize('value', ['1e400', '-.inf', '.nan', '9' * 19, '[]', '{a: b}', '"\\0"', '"\\x1b[2J"', '~'])
@pytest.mark.parametrize('key', ['name', 'input', 'frames', 'timeout', 'seeds', 'parameters', 'expect', 'reference'])
def test_odd_values_in_a_suite_are_refused_or_accepted(tmp_path, capsys, key, value):
    case = {'name': '"a"', 'input': 'b', 'reference': '{folder: c}', 'runner': 'live'} | {key: value}
    given = ', '.join(f'{name}: {text}' for name, text in case.items())
    assert main(['regress', write_suite(tmp_path, f'cases: [{{{given}}}]'), '--dry-run']) in (0, 2)
    text = capsys.readouterr().err
    assert 'fault of xmem_ros' not in text
    assert text.replace('\n', '').isprintable()


@pytest.mark.parametrize('text', ['[' * 100_000, '9' * 6000, '{"version": 1, "cases": {"a": {"figures": {"mean_iou": 1e999}}}}', '\udcff', 'null', '{"version": {}}', '{"version": 1, "cases": {"a": {"figures": {"mean_iou": ' + '9' * 400 + '}}}}'])  # fmt: skip  # noqa: E501
def test_a_hostile_baseline_is_refused(tmp_path, capsys, text):
    (tmp_path / 'baseline.json').write_bytes(text.encode('utf-8', 'surrogateescape'))
    suite = write_suite(tmp_path)
    refused(capsys, ['regress', suite, '--baseline', str(tmp_path / 'baseline.json')], 'baseline.json: ')


# --- names and numbers


@pytest.mark.parametrize('out', ['/', '//', '/..', 'o' * 249, '\N{CAT FACE}' * 63])
def test_an_impossible_destination_is_refused_before_tracking(frames, tmp_path, capsys, out, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, arguments(frames, out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['frames', 'mask.png']


def test_a_link_to_itself_as_destination_is_refused(frames, tmp_path, capsys):
    (tmp_path / 'loop').symlink_to('loop')
    refused(capsys, arguments(frames, tmp_path / 'loop'), 'loop')


def test_file_names_that_are_not_utf_8_are_read_and_written(tmp_path, capsys):
    odd = os.fsdecode(b'caf\xe9')
    frames = write_frames(tmp_path / odd / 'in', [f'{odd}{index}' for index in range(COUNT)])
    formats = [part for name in ('png', 'coco', 'ytvos', 'overlay') for part in ('--format', name)]
    out = tmp_path / odd / 'out'
    assert main(arguments(frames, out, *formats)) == 0
    said = capsys.readouterr().out
    assert 'udce9' in said
    assert said.replace('\n', '').isprintable()
    assert read_mask(out / f'{odd}0.png').max() == 1
    json.loads((out / 'coco.json').read_text())
    refused(capsys, arguments(frames, out), 'already exists')


def test_frame_names_of_245_characters_are_written(tmp_path):
    frames = write_frames(tmp_path / 'frames', [f'{"x" * 244}{index}' for index in range(COUNT)])
    assert main(arguments(frames, tmp_path / 'out')) == 0
    assert len(list((tmp_path / 'out').glob('x*.png'))) == COUNT


@pytest.mark.parametrize('at', ['9' * 5000, '1E999999999', '1E-999999999', '-1', 'nan', 'inf', '٣' * 5000, '1' * 12])
def test_an_invalid_image_reference_is_refused(frames, tmp_path, capsys, at):
    text = refused(capsys, arguments(frames, tmp_path / 'out', f'--at={at}'))
    assert len(text) < 500
    (tmp_path / 'seeds.yaml').write_text(f'[{{stamp: "{at}", labels: mask.png}}]')
    refused(capsys, arguments(frames, tmp_path / 'out', seed='seeds.yaml'), 'entry 1')


@pytest.mark.parametrize('box', [f'a={"9" * 5000},0,1,1', 'a=4294967296,0,1,1', os.fsdecode(b'\xff=20,20,20,20'), f'{"n" * 300}=20,20,20,20', 'a=0,0,0,0', 'a=1,1,4294967295,1'])  # fmt: skip  # noqa: E501
def test_a_malformed_box_is_refused(frames, tmp_path, capsys, box):
    refused(capsys, arguments(frames, tmp_path / 'out', '--box', box, seed=''))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('entry', ['{frame: 0, objects: [{box: [4294967295, 1, 1, 1]}]}', '{frame: 0, objects: [{points: [[1e308, 1e308]]}]}', '{frame: 0, objects: [{points: [[-5, 3]]}]}', '{frame: 0, objects: [{name: "a\\0b", box: [20, 20, 20, 20]}]}', '{frame: 0, objects: [{id: 4294967296, box: [20, 20, 20, 20]}]}', '{frame: 0, labels: "a\\0b"}', '{frame: 0, labels: ' + 'x' * 5000 + '}', '{frame: 0, labels: mask.png, names: {1: [a]}}', '{frame: 0, labels: mask.png, names: {99999999999: a}}', '{frame: 4294967295, labels: mask.png}', '{frame: 0, remove: [[a]]}', '{frame: 0, objects: [{points: []}]}', '{frame: 0, objects: [{points: [a]}]}', '{frame: 0, objects: 5}', 'null', '5'])  # fmt: skip  # noqa: E501
def test_a_malformed_seed_entry_is_refused(frames, tmp_path, capsys, entry):
    (tmp_path / 'seeds.yaml').write_text(f'- {entry}')
    refused(capsys, arguments(frames, tmp_path / 'out', seed='seeds.yaml'), 'entry 1')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('more', [['--size', '9' * 5000], ['--segment', '9' * 5000], ['--device', 'x' * 5000], ['--device', 'cuda:99999999999999999999'], ['--node', '\x1b[31m'], ['--weights', 'x' * 5000], ['--weights', 'a\x1bb.pth'], ['--params', '/dev/null'], ['--params', '/dev/zero'], ['--params', 'x' * 5000], ['--seed', '/'], ['--seed', 'x' * 5000]])  # fmt: skip  # noqa: E501
def test_an_odd_option_value_is_refused(frames, tmp_path, capsys, more):
    try:
        code = main(arguments(frames, tmp_path / 'out', *more, seed='' if more[0] == '--seed' else 'mask.png'))
    except SystemExit as end:  # of argparse
        code = end.code
    text = capsys.readouterr().err
    assert code == 2
    assert 'Traceback' not in text
    assert '\x1b' not in text


def test_a_deeply_nested_weights_lock_file_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path))
    for text in ('[' * 100_000, '{"XMem.pth": {"bytes": ' + '9' * 6000 + '}}', '{"a": NaN}'):
        (tmp_path / 'weights.lock.json').write_text(text)
        refused(capsys, ['weights', 'list'], 'weights.lock.json')


def test_a_tracker_refuses_an_impossible_time_size_or_name(tmp_path):
    from xmem_ros.errors import FrameError, MemoryFileError
    from xmem_ros.tracker import Tracker, TrackerConfig

    tracker = Tracker.from_weights('compact', config=TrackerConfig(size=64), device='cpu')
    frame = np.zeros((*SIZE, 3), np.uint8)
    for time in (10**400, -(10**5000), float('inf'), 'x' * 10**6, [[0] * 1000] * 1000):
        with pytest.raises(FrameError, match=r'time is .{1,200}; give') as raised:
            tracker.step(frame, time=time)
        assert len(str(raised.value)) < 300
    for size in ((65_535, 65_535), (10**5000, 1), (16_384, 16_384)):
        with pytest.raises(FrameError, match='output_size is'):
            tracker.step(frame, output_size=size)
    for name in ('a\0b', tmp_path / ('x' * 300), tmp_path, '/', os.fsdecode(b'/\xff\0')):
        with pytest.raises(MemoryFileError):
            tracker.save(name)
        with pytest.raises(MemoryFileError):
            tracker.load(name)
    (tmp_path / 'thesis.tex').write_text('mine')
    (tmp_path / 'link').symlink_to('thesis.tex')
    with pytest.raises(MemoryFileError, match='link'):
        tracker.save(tmp_path / 'link')
    assert (tmp_path / 'thesis.tex').read_text() == 'mine'
    tracker.save(tmp_path / os.fsdecode(b'\xff' * 200))
    assert tracker.load(tmp_path / os.fsdecode(b'\xff' * 200)) == []


@pytest.mark.parametrize('line', ['iterations: 9999999999', 'batch: 1000000', 'workers: 100000', 'clips: {size: 1600000}', 'learning_rate: .nan', 'learning_rate: .inf', 'seed: 99999999999999999999', 'clips: {zoom: [.nan, 1]}', 'clips: {zoom: [1.0e-300, 1.0e+300]}', 'clips: {growth_factor: 1.0e+300}', 'clips: {bend: 1.0e+300}', 'clips: {colour: 1.0e+300}', 'clips: {frames: 1000, size: 4096}', 'batch: 65536, clips: {size: 1024}', 'bootstrap: [.inf, 1, 0.3]', 'clips: {skips: [[.nan, 1]]}'])  # fmt: skip  # noqa: E501
def test_training_refuses_numbers_out_of_range(tmp_path, capsys, line):
    (tmp_path / 'run.yaml').write_text(f'{{videos: [a], {line}}}')
    given = ['train', '--config', tmp_path / 'run.yaml', '--out', tmp_path / 'out', '--dry-run']
    refused(capsys, [str(part) for part in given], 'run.yaml: ')


@pytest.mark.parametrize('more', [['--size', '99999999', '1'], ['--size', '0', '5'], ['--objects', '9' * 4000], ['--shorter-side', '9' * 4000], ['--shorter-side', '100000']])  # fmt: skip  # noqa: E501
def test_export_refuses_numbers_out_of_range(tmp_path, capsys, more):
    refused(capsys, ['export', '--onnx', str(tmp_path), *more])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('more', [['--memory-every', '9' * 400], ['--top-k', '9' * 400], ['--prototypes', '-1'], ['--long-term-elements', '9' * 30], ['--working-frames', '1', '9' * 30]])  # fmt: skip  # noqa: E501
def test_evaluation_refuses_numbers_out_of_range(tmp_path, capsys, more):
    given = [
        'evaluate',
        '--dataset',
        'generic',
        '--root',
        str(tmp_path),
        '--output',
        str(tmp_path / 'out'),
        '--dry-run',
    ]
    refused(capsys, [*given, *more])


# --- text from outside


def test_untrusted_text_is_escaped_for_terminals_and_logs():
    odd = 'cup\x1b[31m\x07\r\nxmem: error: forged\u202e\udcff\x9b'
    assert for_log(odd) == 'cup\\x1b[31m\\x07\\r\\nxmem: error: forged\\u202e\\udcff\\x9b'
    assert for_terminal('one\ntwo\x1b') == 'one\n  two\\x1b'
    assert for_log('Käfig 猫 ❤') == 'Käfig 猫 ❤'
    assert len(for_log('x' * 10**6)) < 3000


@pytest.mark.parametrize('name', ['=HYPERLINK("http://x")', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', ' =1', '＝1'])
def test_names_are_escaped_against_spreadsheet_formulas(name):
    assert for_csv(name).startswith("'")
    assert for_csv('cup') == 'cup'


def test_text_is_written_to_xml_and_to_streams_of_any_encoding(tmp_path):
    assert for_xml('a\x1b\udcffb<') == 'a\ufffd\ufffdb<'
    with (tmp_path / 'latin').open('w', encoding='ascii') as stream:
        say('caf\xe9 \udcff → \x1b', file=stream)
    assert (tmp_path / 'latin').read_text() == 'caf\\xe9 \\udcff \\u2192 \\x1b\n'


def test_names_are_escaped_in_tables_terminals_and_reports(frames, tmp_path, capsys):
    name = '=HYPERLINK("http://x")\x1b[31m\nforged'
    (tmp_path / 'seeds.yaml').write_text(f'[{{frame: 0, labels: mask.png, names: {{1: {json.dumps(name)}}}}}]')
    write_frames(tmp_path / 'second' / 'frames', ['00000'])
    case = {'name': 'a\x1b[31m', 'input': 'frames', 'seeds': 'seeds.yaml', 'reference': {'folder': 'masks'}}
    case |= {'parameters': {'size': 64}, 'expect': {'mean_iou': 1.0}}
    (tmp_path / 'suite.yaml').write_text(json.dumps({'cases': [case]}))
    (tmp_path / 'masks').mkdir()
    for index in range(COUNT):
        (tmp_path / 'mask.png').rename(tmp_path / 'mask.png')
        Image.open(tmp_path / 'mask.png').save(tmp_path / 'masks' / f'{index:05d}.png')
    files = [part for kind in ('json', 'junit', 'html') for part in (f'--{kind}', str(tmp_path / kind))]
    assert main(['regress', str(tmp_path / 'suite.yaml'), *files]) in (0, 1)
    assert capsys.readouterr().out.replace('\n', '').isprintable()
    assert '\x1b' not in (tmp_path / 'junit').read_text()
    assert '=HYPERLINK("http' not in (tmp_path / 'html').read_text()
    json.loads((tmp_path / 'json').read_text())


def test_a_csv_table_of_objects_contains_no_formula(tmp_path):
    from xmem_ros.objects import ObjectState, TrackedObject
    from xmem_ros.offline.segments import StoredFrame
    from xmem_ros.offline.sinks.pictures import PngSink

    item = TrackedObject(1, 1, '=1+1', ObjectState.TRACKED, 1.0, (0, 0, 1, 1), 1, (0.0, 0.0), 0, 0, 0.0, 0.0)
    labels = np.ones((4, 4), np.uint8)
    with PngSink(tmp_path, table=True) as sink:
        sink.write(StoredFrame(0, 1, 1, 'camera', '1', labels, labels, [item], {1: 1}, []), None)
    rows = list(csv.reader((tmp_path / 'objects.csv').open()))
    assert rows[1] == ['1', '1', "'=1+1"]


# --- secrets


@pytest.mark.parametrize(
    'text',
    [
        'https://robot:s3cret@mirror/x.pth: the server responded 404',
        'http://mirror/x.pth?token=s3cret&size=1: download failed',
        "http://mirror/x?X-Amz-Signature=s3cret'",
        'password=s3cret',
        'Authorization: Bearer s3cret',
        'API_KEY: s3cret',
    ],
)
def test_secrets_are_masked(text):
    assert 's3cret' not in without_secrets(text)
    assert 's3cret' not in for_log(text)
    assert 's3cret' not in for_terminal(text)


def test_errors_of_a_fetch_mask_secrets(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path))
    monkeypatch.setenv('XMEM_ROS_WEIGHTS_URL', 'http://robot:s3cret@127.0.0.1:9/files')
    monkeypatch.setattr('xmem_ros.weights.download.ATTEMPTS', 1)
    text = refused(capsys, ['weights', 'fetch', 'xmem'])
    assert 's3cret' not in text
    assert re.search(r'http://\*\*\*@127\.0\.0\.1', text)


def test_an_internal_error_prints_one_line_and_has_its_own_exit_code(capsys, monkeypatch):
    def broken(_):
        raise ZeroDivisionError('\x1b[31m token=s3cret')

    monkeypatch.setattr('xmem_ros.cli.weights.run_list', broken)
    assert main(['weights', 'list']) == 70
    text = capsys.readouterr().err
    assert 'this is a fault of xmem_ros' in text
    assert 's3cret' not in text
    assert '\x1b' not in text
    monkeypatch.setenv('XMEM_ROS_TRACEBACK', '1')
    with pytest.raises(ZeroDivisionError):
        main(['weights', 'list'])
