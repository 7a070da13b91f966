# SPDX-License-Identifier: MIT
"""Results of an evaluation: tables, JSON, CSV and the report; and evaluations that fail."""

from __future__ import annotations

import base64
import csv
import json
import re
import sys

import cv2
import numpy as np
import pytest
from needs import require
from published_layouts import davis
from scene_files import save_frame, save_mask, save_sequence, save_untrained_weights

from xmem_ros.cli.main import main
from xmem_ros.evaluation.report import worst

require('vos_benchmark')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_untrained_weights(tmp_path_factory.mktemp('weights') / 'untrained.safetensors')


def evaluate(root, weights, output, *more, dataset='generic'):
    options = ['--dataset', dataset, '--root', root, '--weights', weights, '--output', output, '--size', '64']
    return main(['evaluate', *map(str, [*options, '--device', 'cpu', *more])])


def test_json_and_csv_have_total_sequence_and_object_scores(tmp_path, weights):
    save_sequence(tmp_path, 'one', frames=5, objects=1)
    save_sequence(tmp_path, 'two', frames=6)
    files = ['--json', tmp_path / 'scores.json', '--csv', tmp_path / 'deep' / 'scores.csv']
    assert evaluate(tmp_path, weights, tmp_path / 'out', *files) == 0
    result = json.loads((tmp_path / 'scores.json').read_text())
    with (tmp_path / 'deep' / 'scores.csv').open() as lines:
        found = {(row['sequence'], row['object']): row for row in csv.DictReader(lines)}
    assert list(found) == [('', ''), ('one', ''), ('one', '1'), ('two', ''), ('two', '1'), ('two', '2')]
    expected = {('', ''): result}
    for name, scores in result['sequences'].items():
        expected[name, ''] = scores
        expected |= {(name, value): one for value, one in scores['objects'].items()}
    for key, scores in expected.items():
        for measure in ('J', 'F', 'J&F'):
            assert float(found[key][measure]) == pytest.approx(scores[measure], abs=5e-5)
    assert float(found['', '']['fps']) == pytest.approx(result['fps'], abs=5e-5)
    assert {'dataset', 'weights', 'size', 'memory_every', 'device', 'precision', 'torch'} <= set(result)


def test_without_ground_truth_only_masks_and_the_rate_are_reported(tmp_path, weights, capsys):
    davis(tmp_path, split='test-dev')
    files = ['--split', 'test-dev', '--json', tmp_path / 'scores.json', '--csv', tmp_path / 'scores.csv']
    report = ['--report', tmp_path / 'report.html']
    assert evaluate(tmp_path, weights, tmp_path / 'out', *files, *report, dataset='davis2017') == 0
    result = json.loads((tmp_path / 'scores.json').read_text())
    assert result['J&F'] is None
    assert result['fps'] > 0
    assert (tmp_path / 'scores.csv').read_text().splitlines()[2].startswith('a,,,,,0,')
    out = capsys.readouterr().out
    assert 'davis2017-test-dev.zip: upload this file' in out
    assert 'all objects' not in out
    assert 'scored by its server' in (tmp_path / 'report.html').read_text()


def test_the_report_shows_the_worst_five_sequences_in_one_file(tmp_path, weights):
    for number in range(7):
        save_sequence(tmp_path, f'toys{number}', frames=4 + number)
    files = ['--report', tmp_path / 'report.html', '--json', tmp_path / 'scores.json']
    assert evaluate(tmp_path, weights, tmp_path / 'out', *files) == 0
    page = (tmp_path / 'report.html').read_text()
    result = json.loads((tmp_path / 'scores.json').read_text())
    ranked = sorted(result['sequences'], key=lambda name: result['sequences'][name]['J&F'])
    assert re.findall(r'<h2>(toys\d)', page) == ranked[:5] == worst(result)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    pictures = re.findall(r'data:image/jpeg;base64,([^"]+)', page)
    assert len(pictures) >= 5 * 3
    image = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (280, 420, 3)  # 64×96 px, 420 wide
    assert len(re.findall(r'<figcaption>frame \d+, the worst: IoU', page)) == 5
    for name, scores in result['sequences'].items():
        assert f'<td>{name}</td><td>{scores["J&F"]:.1f}</td>' in page


def test_names_are_escaped_in_the_report(tmp_path, weights):
    save_sequence(tmp_path, '<b>toys&more', frames=4)
    assert evaluate(tmp_path, weights, tmp_path / 'out', '--report', tmp_path / 'report.html') == 0
    page = (tmp_path / 'report.html').read_text()
    assert '<b>toys' not in page
    assert '&lt;b&gt;toys&amp;more' in page


def test_a_corrupt_frame_is_named_and_finished_sequences_are_kept(tmp_path, weights, capsys):
    save_sequence(tmp_path, 'first')
    save_sequence(tmp_path, 'second')
    path = tmp_path / 'JPEGImages' / 'second' / '00002.jpg'
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    assert evaluate(tmp_path, weights, tmp_path / 'out') == 2
    assert f'{path}: not a readable image' in capsys.readouterr().err
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / 'out' / 'first').iterdir()}
    assert len(kept) == 5
    path.write_bytes(whole)
    assert evaluate(tmp_path, weights, tmp_path / 'out') == 0
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / 'out' / 'first').iterdir()} == kept


def test_a_truncated_checkpoint_is_named(tmp_path, weights, capsys):
    import torch

    save_sequence(tmp_path)
    torch.save({'weight': torch.zeros(1000)}, tmp_path / 'cut.pth')
    for name, text in (('cut.pth', 'cannot be read as weights'), ('cut.safetensors', 'cannot be read as weights')):
        path = tmp_path / name
        data = weights.read_bytes() if name.endswith('tensors') else path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        assert evaluate(tmp_path, path, tmp_path / 'out') == 2
        assert f'{path}: {text}' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_frame_of_another_size_than_its_mask_is_named(tmp_path, weights, capsys):
    save_sequence(tmp_path)
    save_frame(tmp_path / 'JPEGImages' / 'toys' / '00003.jpg', np.zeros((70, 90, 3), np.uint8))
    assert evaluate(tmp_path, weights, tmp_path / 'out') == 2
    assert '00003.png: the mask is 90×70 px, its ground truth' in capsys.readouterr().err


def test_unseeded_objects_are_scored_and_named(tmp_path, weights, capsys):
    save_sequence(tmp_path)
    seed = tmp_path / 'Annotations' / 'toys' / '00000.png'
    labels = cv2.imread(str(seed), cv2.IMREAD_UNCHANGED)
    save_mask(seed, labels * (labels == 1))
    assert evaluate(tmp_path, weights, tmp_path / 'out') == 0
    said = capsys.readouterr()
    assert 'toys: objects with ground truth but without a seed: 2' in said.err
    assert '  object 2' in said.out


@pytest.mark.parametrize('option', ['--json', '--csv', '--report'])
def test_an_unwritable_result_file_is_named_before_tracking(tmp_path, weights, option, capsys):
    save_sequence(tmp_path)
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'file').write_text('')
    for path in (tmp_path / 'taken', tmp_path / 'file' / 'scores'):
        assert evaluate(tmp_path, weights, tmp_path / 'out', option, path) == 2
        assert f'{path}: cannot be written' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_report_without_jinja2_is_refused_before_tracking(tmp_path, weights, monkeypatch, capsys):
    save_sequence(tmp_path)
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    assert evaluate(tmp_path, weights, tmp_path / 'out', '--report', tmp_path / 'report.html') == 2
    assert 'the report needs jinja2: pip install jinja2' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_an_unwritable_result_folder_is_named_before_tracking(tmp_path, weights, monkeypatch, capsys):
    save_sequence(tmp_path)
    monkeypatch.setattr('os.access', lambda path, _: path != tmp_path / 'closed')  # root may write everywhere
    assert evaluate(tmp_path, weights, tmp_path / 'out', '--json', tmp_path / 'closed' / 'scores.json') == 2
    assert 'closed/scores.json: cannot be written' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_fps_prints_the_rate_and_writes_no_masks(tmp_path, weights, capsys):
    save_sequence(tmp_path)
    options = ['--dataset', 'generic', '--root', tmp_path, '--weights', weights, '--size', 64, '--device', 'cpu']
    options += ['--fps', '--precision', 'float32', '--json', tmp_path / 'fps.json']
    assert main(['evaluate', *map(str, options)]) == 0
    result = json.loads((tmp_path / 'fps.json').read_text())
    out = capsys.readouterr().out
    assert f'float32: {result["fps"]:.2f} frames/s' in out
    assert result['speed'][0]['device_name'] in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ['Annotations', 'JPEGImages', 'fps.json']


@pytest.mark.parametrize(('text', 'value'), [('480', 480), ('-1', 'full'), ('full', 'full'), ('auto', 'auto')])
def test_sizes_are_pixels_full_or_auto(text, value):
    from xmem_ros.cli.evaluate import size

    assert size(text) == value
    arguments = ['--dataset', 'davis2017', '--root', 'DATA', '--output', 'out', '--size', text, '--dry-run']
    assert main(['evaluate', *arguments]) == 0


@pytest.mark.parametrize('text', ['0', '15', '5000', '-2', 'large', '480.5'])
def test_other_sizes_are_refused(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['evaluate', '--dataset', 'generic', '--root', '.', '--output', 'out', '--size', text])
    assert stopped.value.code == 2
    assert 'full, -1 or auto' in capsys.readouterr().err
