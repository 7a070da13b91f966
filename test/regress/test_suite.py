# SPDX-License-Identifier: MIT
"""Reading of suites as in docs/regress.md, and their faults."""

from datetime import date
from pathlib import Path
from random import Random

import pytest
import yaml

from xmem_ros.cli.main import main
from xmem_ros.errors import ParameterError
from xmem_ros.regress import suite_schema
from xmem_ros.regress.suite import chosen, read_suite

DOCS = Path(__file__).parents[2] / 'docs' / 'regress.md'
SOUND = {'name': 'table', 'input': 'table.mcap', 'reference': {'topic': '/truth'}}


def written(tmp_path, *cases, **suite):
    path = tmp_path / 'suite.yaml'
    path.write_text(yaml.safe_dump({'cases': list(cases), **suite}, sort_keys=False))
    return path


def test_paths_are_relative_to_the_suite_and_defaults_are_merged(tmp_path):
    path = written(
        tmp_path,
        {**SOUND, 'expect': {'id_switches': 1}, 'parameters': {'memory.top_k': 20}},
        {'name': 'film', 'input': 'film.mp4', 'reference': {'folder': 'masks'}, 'seeds': 'first.png', 'runner': 'live'},
        defaults={
            'expect': {'id_switches': 0, 'mean_iou': 0.8, 'object_iou': {'mug': 0.9}, 'age_ms': 500},
            'parameters': {'size': 240, 'memory': {'top_k': 10}},
            'timeout': 30,
        },
        baseline='figures.json',
    )
    suite = read_suite(path)
    table, film = suite.cases
    assert suite.baseline == tmp_path / 'figures.json'
    assert table.input == table.reference.bag == tmp_path / 'table.mcap'
    assert table.expect == {'id_switches': 1, 'mean_iou': 0.8, 'object_iou.mug': 0.9}  # age_ms is live only
    assert table.parameters['size'] == 240
    assert table.parameters['memory.top_k'] == 20
    assert film.reference.folder == tmp_path / 'masks'
    assert film.seeds.file == tmp_path / 'first.png'
    assert (film.runner, film.timeout, film.expect['age_ms']) == ('live', 30, 500)
    assert [case.name for case in chosen(suite, ['film'])] == ['film']
    with pytest.raises(ParameterError, match="no case 'flim'; known: table, film"):
        chosen(suite, ['flim'])


def test_defaults_that_do_not_apply_to_a_case_are_ignored(tmp_path):
    path = written(
        tmp_path,
        {'name': 'started', 'input': 'a', 'runner': 'live'},
        {'name': 'running', 'input': 'a', 'runner': 'live', 'node': '/xmem'},
        {'name': 'offline', 'input': 'a', 'reference': {'folder': 'masks'}},
        defaults={
            'reference': {'bag': 'truth', 'topic': '/truth', 'min_area': 9},
            'parameters': {'size': 240},
            'params_file': 'robot.yaml',
            'timeout': 9,
            'expect': {'process_mb': 2000, 'age_ms': 100, 'mean_iou': 0.5},
        },
    )
    started, running, offline = read_suite(path).cases
    assert (started.parameters, started.params_file) == ({'size': 240}, tmp_path / 'robot.yaml')
    assert (running.parameters, running.params_file) == ({}, None)
    assert [list(case.expect) for case in (started, running, offline)] == [
        ['process_mb', 'age_ms', 'mean_iou'],
        ['age_ms', 'mean_iou'],
        ['mean_iou'],
    ]
    assert started.reference.bag == tmp_path / 'truth'
    assert (offline.reference.bag, offline.reference.folder) == (None, tmp_path / 'masks')
    assert offline.reference.min_area == 9


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'expct': {}}, "case 'table': expct: unknown key; did you mean expect?"),
        ({'expect': {'mean_iuo': 1}}, "case 'table': expect.mean_iuo: unknown figure; did you mean mean_iou?"),
        ({'expect': {'mean_iou': 80}}, "case 'table': expect.mean_iou is 80; it must be a number from 0 to 1"),
        ({'expect': {'mean_iou': '0.8'}}, "expect.mean_iou is '0.8'; it must be a number from 0 to 1"),
        ({'expect': {'object_iou': {'mug': -1}}}, 'expect.object_iou.mug is -1'),
        ({'expect': {'age_ms': 100}}, "case 'table': expect.age_ms: requires runner: live"),
        ({'expect': [1]}, "case 'table': expect is [1]; it must be figures"),
        ({'tolerance': {'id_switches': True}}, 'tolerance.id_switches is True'),
        ({'frames': -1}, 'frames is -1; it must be a whole number'),
        ({'runner': 'online'}, "runner is 'online'; it must be offline or live"),
        ({'node': '/xmem'}, "case 'table': node: requires runner: live"),
        (
            {'runner': 'live', 'node': '/xmem', 'parameters': {'size': 240}},
            'a running node keeps',
        ),
        ({'parameters': {'sise': 240}}, "parameters: unknown parameter 'sise' (did you mean 'size'?)"),
        ({'parameters': {'size': 'large'}}, "parameters: size is 'large'; it must be a whole number"),
        ({'parameters': {'queue': 'all'}}, 'parameters.queue: set by the runner'),
        ({'seeds': {'box': {}}}, 'seeds.box: unknown key; did you mean boxes?'),
        ({'seeds': {'at': 3}}, 'seeds: give a mask, boxes or both, or only the topic'),
        ({'seeds': {'topic': '/seeds', 'mask': 'a.png'}}, 'seeds: give a mask, boxes or both, or only the topic'),
        ({'seeds': {'boxes': {'mug': [1, 2, 3]}}}, 'seeds.boxes is'),
        ({'reference': {}}, 'reference: give either a folder of masks, or the topic'),
        ({'reference': {'folder': 'a', 'topic': '/b'}}, 'reference: give either a folder of masks, or the topic'),
        ({'reference': {'topic': '/b', 'objects': {255: 'mug'}}}, 'reference.objects is {255'),
        ({'reference': {'topic': '/b', 'objects': {1: 'mug', 2: 'mug'}}}, "objects: 'mug' has several values"),
        ({'runner': 'live', 'timeout': 0}, 'timeout is 0; it must be seconds, 0.1 or more'),
        ({'reference': None}, 'reference is None'),
        ({'name': 7}, 'cases[0].name is 7; it must be text'),
    ],
)
def test_faults_are_named_with_file_and_key(tmp_path, capsys, change, said):
    path = written(tmp_path, {**SOUND, **change})
    assert main(['regress', str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert said in error
    assert 'Traceback' not in error


@pytest.mark.parametrize('missing', SOUND)
def test_missing_keys_are_named(tmp_path, missing):
    with pytest.raises(ParameterError, match=f'{missing} is missing'):
        read_suite(written(tmp_path, {name: value for name, value in SOUND.items() if name != missing}))


def test_all_faults_are_reported_at_once(tmp_path):
    with pytest.raises(ParameterError) as caught:
        read_suite(written(tmp_path, {**SOUND, 'frames': 'x'}, {**SOUND, 'name': 'film', 'inptu': 'x'}, 3))
    assert all(said in str(caught.value) for said in ('frames is', 'inptu: unknown', 'cases[2] is 3'))


def test_duplicate_names_and_files_that_are_not_suites_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="case 'table': 2 cases have this name"):
        read_suite(written(tmp_path, SOUND, SOUND))
    path = tmp_path / 'none.yaml'
    path.write_text('baseline: x.json\n')
    with pytest.raises(ParameterError, match='cases is missing'):
        read_suite(path)
    with pytest.raises(ParameterError, match='defaults.name: not allowed'):
        read_suite(written(tmp_path, SOUND, defaults={'name': 'x'}))
    for text, said in (
        ('- a', 'not a suite; a suite is a mapping'),
        ('a: [', 'not usable YAML'),
        ('\x80', 'not a text file|not usable YAML'),
    ):
        path.write_bytes(text.encode('latin-1'))
        with pytest.raises(ParameterError, match=said):
            read_suite(path)
    for text, said in (
        ('cases:\n- {name: a, name: b}', 'duplicate key name'),
        ('cases:\n- parameters: &a {b: *a}', r'line 2, column 22: the alias \*a stands inside its own anchor'),
        ('cases:\n- parameters: {a: {b: {c: {d: {e: {f: 1}}}}}}', 'nested too deeply'),
    ):
        path.write_text(text)
        with pytest.raises(ParameterError, match=said):
            read_suite(path)
    with pytest.raises(ParameterError, match='cannot be read'):
        read_suite(tmp_path / 'absent.yaml')


def _spoilt(random, node):
    """Return a YAML node with one of its parts, or a key, replaced by something else."""
    junk = (
        None,
        [],
        {},
        -1,
        3.5,
        True,
        'x',
        '',
        float('nan'),
        10**30,
        [1, [2]],
        {'a': {'b': 1}},
        {1: 2},
        date(2024, 1, 1),
    )
    if not isinstance(node, dict | list) or not node or random.random() < 0.25:
        return random.choice(junk)
    if isinstance(node, list):
        place = random.randrange(len(node))
        return [_spoilt(random, item) if k == place else item for k, item in enumerate(node)]
    key = random.choice(list(node))
    if random.random() < 0.15:
        return {random.choice(('nmae', 3, None)) if name == key else name: value for name, value in node.items()}
    return {name: _spoilt(random, value) if name == key else value for name, value in node.items()}


def test_a_mutated_suite_is_read_or_refused_with_a_parameter_error(tmp_path):
    random = Random(0)
    everything = {
        'baseline': 'b.json',
        'defaults': {'expect': {'mean_iou': 0.5, 'age_ms': 100}, 'timeout': 9},
        'cases': [
            {
                **SOUND,
                'runner': 'live',
                'node': '/xmem',
                'expect': {'object_iou': {'mug': 0.5}},
                'seeds': {'mask': 'a.png'},
            },
            {
                **SOUND,
                'name': 'b',
                'frames': 3,
                'seeds': {'boxes': {'mug': [1, 2, 3, 4]}, 'at': '1.5'},
                'reference': {'folder': 'a', 'objects': {1: 'mug'}, 'min_area': 4},
                'tolerance': {'mean_iou': 0.1},
                'params_file': 'p.yaml',
            },
        ],
    }
    path = tmp_path / 'suite.yaml'
    path.write_text(yaml.safe_dump(everything))
    assert len(read_suite(path).cases) == 2
    refused = []
    for _ in range(400):
        path.write_text(yaml.safe_dump(_spoilt(random, everything)))
        try:
            read_suite(path)
        except ParameterError as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert all(said.startswith(f'{path}: ') for said in refused)


def test_a_dry_run_only_checks_the_suite(tmp_path, capsys):
    assert main(['regress', str(written(tmp_path, SOUND)), '--dry-run']) == 0
    assert 'valid' in capsys.readouterr().out


def test_the_documentation_has_every_key():
    assert suite_schema.tables() in DOCS.read_text(), 'python -m xmem_ros.regress.suite_schema prints the tables'


def test_the_example_in_the_documentation_is_a_suite(tmp_path):
    example = DOCS.read_text().partition('```yaml\n')[2].partition('```')[0]
    path = tmp_path / 'suite.yaml'
    path.write_text(example)
    assert read_suite(path).cases
