# SPDX-License-Identifier: MIT
"""The table of published figures, and docs/reproduction.md, which is rendered from it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from xmem_ros.cli.main import main
from xmem_ros.errors import ParameterError
from xmem_ros.evaluation.reproduction import rows, table

CHECKOUT = Path(__file__).resolve().parents[2]
# section → figures of the paper and of the authors' list
PUBLISHED = {
    'DAVIS 2016 val': [91.5, 87.8, 90.8, 92.0, 92.7],
    'DAVIS 2017 val': [86.2, 87.7, 88.2, 89.5, 84.5, 76.7, 85.1],
    'DAVIS 2017 test-dev': [81.0, 81.2, 82.5, 83.1, 83.7, 79.8],
    'Frame rate on DAVIS 2016 val': [29.6, 40.3],
    'Frame rate on DAVIS 2017 val': [22.6, 33.9],
    'MOSE val': [57.6],
    'YouTube-VOS 2018 val': [85.7, 84.4, 86.1, 86.7, 86.9, 84.3, 84.4],
    'YouTube-VOS 2019 val': [84.3, 85.8, 86.4, 86.8, 84.2],
    'Long-time Video': [89.8, 90.0],
}


def commands():
    return list(dict.fromkeys(command for row in rows() for command in row.commands))


def arguments_of(command):
    """Return the arguments of xmem-ros, also in a command that begins with torchrun."""
    words = shlex.split(command)
    if words[0] == 'xmem-ros':
        return words[1:]
    return words[words.index('xmem_ros.cli.main') + 1 :]


def test_every_published_figure_has_a_row():
    found = {}
    for row in rows():
        if row.published is not None:
            found.setdefault(row.section, []).append(row.published)
    assert {section: sorted(figures) for section, figures in found.items()} == {
        section: sorted(figures) for section, figures in PUBLISHED.items()
    }
    assert len({row.id for row in rows()}) == len(rows())


@pytest.mark.parametrize('command', [c for c in commands() if 'training.imagenet' not in c])
def test_every_command_of_the_table_passes_a_dry_run(command, monkeypatch, capsys):
    monkeypatch.chdir(CHECKOUT)
    assert main([*arguments_of(command), '--dry-run']) == 0
    assert capsys.readouterr().out.startswith('valid: ')


def test_the_command_that_fetches_the_trunks_names_an_existing_module(monkeypatch, tmp_path):
    from xmem_ros.training import imagenet

    assert [c for c in commands() if 'training.imagenet' in c] == [
        'python -m xmem_ros.training.imagenet DATA/imagenet.safetensors'
    ]
    assert callable(imagenet.main)


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['--dataset', 'davis2017', '--root', 'DATA'], '--output is missing'),
        (['--root', 'DATA', '--output', 'out'], '--dataset is missing'),
        (['--dataset', 'davis2017', '--output', 'out'], '--root is missing'),
        (
            ['--dataset', 'davis2017', '--root', 'DATA', '--output', 'out', '--weights', 'xmen'],
            "unknown weights 'xmen'",
        ),
        (['--dataset', 'davis2016', '--root', 'DATA', '--output', 'out', '--split', 'test-dev'], 'no split'),
        (['--dataset', 'davis2016', '--root', 'DATA', '--output', 'out', '--keep-scores', 's'], '--scales'),
        (['--dataset', 'davis2016', '--root', 'DATA', '--fps', '--scales', '480'], '--fps measures a single pass'),
        (['--dataset', 'davis2016', '--root', 'DATA', '--output', 'o', '--working-frames', '9', '5'], 'must be below'),
    ],
)
def test_a_dry_run_refuses_an_invalid_command(arguments, text, capsys):
    assert main(['evaluate', *arguments, '--dry-run']) == 2
    assert text in capsys.readouterr().err


def test_a_dry_run_of_training_checks_its_configuration(tmp_path, capsys):
    (tmp_path / 'run.yaml').write_text('networc: xmem\nvideos: [nowhere]\n')
    arguments = ['train', '--config', str(tmp_path / 'run.yaml'), '--out', str(tmp_path / 'out'), '--dry-run']
    assert main(arguments) == 2
    assert 'networc' in capsys.readouterr().err
    (tmp_path / 'run.yaml').write_text('network: xmem\nvideos: [nowhere]\niterations: 7\n')
    assert main(arguments) == 0
    assert '7 iterations' in capsys.readouterr().out
    assert not (tmp_path / 'out').exists()


def line_of(page, what):
    return next(line for line in page.splitlines() if line.startswith(f'| {what}'))


def test_rows_without_a_result_name_their_requirements(tmp_path):
    page = table(tmp_path)
    assert '| not run: needs DAVIS 2016, the weights xmem |' in line_of(page, 'plain')
    assert 'not run: needs MOSE, the weights xmem, and the scoring server' in line_of(
        page, 'seeded from the first frame only'
    )
    assert 'days of training' in line_of(page, 'DAVIS only')
    assert 'masks: not measured' in page


def test_results_and_server_scores_fill_their_rows(tmp_path):
    (tmp_path / 'd16.json').write_text(json.dumps({'J': 90.42, 'F': 92.66, 'J&F': 91.54}))
    (tmp_path / 'mose.json').write_text(json.dumps({'J': None, 'J&F': None, 'server': {'J&F': 57.61}}))
    (tmp_path / 'y18.json').write_text(json.dumps({'J': None, 'J&F': None}))
    speed = {'fps': 29.64, 'speed': [{'device_name': 'Tesla V100'}]}
    (tmp_path / 'fps-float32.json').write_text(json.dumps(speed))
    masks = {'plain': {'differing_percent': 0.00049, 'worst_frame_percent': 0.0015, 'frames': 89}}
    masks |= dict.fromkeys(('flip', 'two_scales'), masks['plain'])
    scores = {'480p': {'differing_percent': 0.15, 'largest_difference': 1}}
    evidence = {'sequences': ['a', 'b'], 'memory_every': 5, 'masks': masks, 'scores': scores}
    (tmp_path / 'reference_evaluation.json').write_text(json.dumps(evidence))
    page = table(tmp_path)
    assert '| 91.5 | **91.5** (J 90.4, F 92.7) | masks: 0.0005 % of pixels differ |' in page
    assert '| 57.6 | **57.6** |' in page
    assert '| 85.7 | masks are ready, but not scored by the server yet |' in page
    assert '| 29.6 | **29.6** (Tesla V100) |' in page
    assert 'on all 89 frames of a and b, with a memory frame every 5 frames.' in page


def test_an_unreadable_result_and_a_missing_folder_are_named(tmp_path, capsys):
    (tmp_path / 'd16.json').write_text('{')
    with pytest.raises(ParameterError, match=r'd16\.json: not JSON'):
        table(tmp_path)
    assert main(['evaluate', '--reproduction-table', '--results', str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere: no such folder' in capsys.readouterr().err


def test_the_documentation_page_matches_the_committed_results(capsys):
    results = CHECKOUT / 'docs' / 'results'
    assert main(['evaluate', '--reproduction-table', '--results', str(results)]) == 0
    made = capsys.readouterr().out
    written = (CHECKOUT / 'docs' / 'reproduction.md').read_text()
    assert made == written, 'run: xmem-ros evaluate --reproduction-table --results docs/results > docs/reproduction.md'
