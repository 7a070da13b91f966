# SPDX-License-Identifier: MIT
"""Checks of results, and the files with results."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from xmem_ros.cli.main import main
from xmem_ros.errors import OutputError, ParameterError
from xmem_ros.regress.junit import write_junit
from xmem_ros.regress.overlaps import ObjectScore
from xmem_ros.regress.report import write_report
from xmem_ros.regress.results import Result, Tile, check, read_baseline, write_baseline, write_json
from xmem_ros.regress.suite import Case, Reference
from xmem_ros.regress.table import table

FIGURES = {'mean_iou': 0.9, 'object_iou.mug': 0.95, 'object_iou.ball': 0.85, 'id_switches': 0.0, 'lost_objects': 0.0}


def case(**options):
    return Case('table', Path('table.mcap'), Reference(folder=Path('masks')), **options)


def checked(case_, baseline=None, **figures):
    result = Result('table', 'offline', figures={**FIGURES, **figures})
    check(result, case_, baseline)
    return result


@pytest.mark.parametrize(
    ('expect', 'met'),
    [
        ({'mean_iou': 0.9}, True),
        ({'mean_iou': 0.91}, False),
        ({'object_iou.mug': 0.95}, True),
        ({'object_iou.mug': 0.96}, False),
        ({'object_iou': 0.85}, True),
        ({'object_iou': 0.9}, False),
        ({'object_iou.cup': 0.1}, False),
        ({'id_switches': 0}, True),
        ({'recovery_frames': 0}, True),
        ({'memory_mb': 100}, False),  # not measured
    ],
)
def test_limits_are_checked_in_the_direction_of_each_figure(expect, met):
    assert checked(case(expect=expect)).state == ('met' if met else 'unmet')


def test_an_unknown_object_is_named_with_the_known_ones():
    (fault,) = checked(case(expect={'object_iou.cup': 0.1})).faults
    assert fault == 'object_iou.cup: not measured; the objects are mug, ball'


@pytest.mark.parametrize(
    ('baseline', 'tolerance', 'met'),
    [
        ({'mean_iou': 0.905}, {}, True),  # within 0.01
        ({'mean_iou': 0.92}, {}, False),
        ({'mean_iou': 0.92}, {'mean_iou': 0.05}, True),
        ({'mean_iou': 0.5}, {}, True),  # better
        ({'object_iou.mug': 0.98}, {}, False),
        ({'object_iou.mug': 0.98}, {'object_iou': 0.05}, True),
        ({'object_iou.mug': 0.98}, {'object_iou': 0.05, 'object_iou.mug': 0.01}, False),
        ({'object_iou.cup': 0.5}, {}, False),  # the object no longer exists
        ({'id_switches': 1}, {}, True),
        ({'age_ms': 5.0}, {}, True),  # depends on the machine: not compared
        ({'recovery_frames': 1}, {}, True),
    ],
)
def test_the_baseline_is_compared_within_the_tolerance(baseline, tolerance, met):
    assert checked(case(tolerance=tolerance), baseline).state == ('met' if met else 'unmet')


def test_an_additional_id_switch_is_a_regression():
    result = checked(case(), dict(FIGURES), id_switches=1.0)
    assert result.faults == ['id_switches is 1; baseline: 0, tolerance: 0']


def test_a_baseline_keeps_the_cases_that_did_not_run_or_failed(tmp_path):
    path = tmp_path / 'baseline.json'
    results = [Result('a', 'offline', figures={'mean_iou': 0.123456789}), Result('b', 'offline', error='no such bag')]
    assert write_baseline(path, results, {'b': {'mean_iou': 0.5}, 'c': {'mean_iou': 0.6}}) == ['a']
    assert read_baseline(path) == {'a': {'mean_iou': 0.123457}, 'b': {'mean_iou': 0.5}, 'c': {'mean_iou': 0.6}}


def test_a_baseline_is_not_written_without_new_figures(tmp_path):
    assert write_baseline(tmp_path / 'baseline.json', [Result('b', 'offline', error='no such bag')], {}) == []
    assert not list(tmp_path.iterdir())


def test_json_results_serve_as_a_baseline(tmp_path):
    path = tmp_path / 'results.json'
    result = checked(case(expect={'mean_iou': 0.99}))
    result.objects = [ObjectScore(1, 'mug', 3, {'00001': 0.95}, recovery=2)]
    result.frames, result.compared = 20, 15
    write_json(path, Path('suite.yaml'), [result])
    assert read_baseline(path) == {'table': {**FIGURES, 'tracked_frames': 20, 'compared_frames': 15}}
    written = json.loads(path.read_text())
    assert (written['unmet'], written['cases']['table']['objects']['mug']['iou']) == (1, {'00001': 0.95})


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{', 'neither a baseline'),
        ('[]', 'neither a baseline'),
        ('{"version": 1, "cases": {"a": {}}}', 'neither a baseline'),
        ('{"version": 1, "cases": {"a": {"figures": {"beauty": 1}}}}', "unknown figure 'beauty'; known: mean_iou"),
        ('{"version": 1, "cases": {"a": {"figures": {"mean_iou": "x"}}}}', 'neither a baseline'),
        ('{"version": 9, "cases": {}}', 'version 9'),
    ],
)
def test_a_file_that_is_not_a_baseline_is_named(tmp_path, text, said):
    path = tmp_path / 'baseline.json'
    path.write_text(text)
    with pytest.raises(ParameterError, match=f'{path}: .*{said}'):
        read_baseline(path)


def test_junit_distinguishes_failures_and_errors(tmp_path):
    path = tmp_path / 'junit.xml'
    good, bad = checked(case()), checked(case(expect={'mean_iou': 0.95}))
    bad.name, bad.seconds = 'bad \x00<&', 1.5
    broken = Result('broken', 'live', error='broken.mcap: not a bag')
    write_junit(path, 'suite', [good, bad, broken])
    suite = ET.parse(path).getroot().find('testsuite')
    assert {k: suite.get(k) for k in ('tests', 'failures', 'errors')} == {'tests': '3', 'failures': '1', 'errors': '1'}
    first, second, third = suite.findall('testcase')
    assert first.find('failure') is None and first.find('error') is None
    assert second.get('name') == 'bad \ufffd<&' and second.get('time') == '1.500'
    assert 'mean_iou is 0.900; expected: at least 0.950' in second.find('failure').get('message')
    assert third.find('error').text == 'broken.mcap: not a bag'


def test_the_table_lists_the_failed_checks():
    result = checked(case(expect={'mean_iou': 0.95}))
    result.frames, result.compared = 3, 1
    result.objects = [ObjectScore(1, 'mug', 3, {'a': 0.95}), ObjectScore(2, 'ball', 4, {'a': 0.85}, lost=True)]
    lines = table([result]).splitlines()
    assert lines[0].split() == ['case', 'frames', 'mean', 'iou', 'id', 'switches', 'lost', 'objects']
    assert lines[1].split() == ['table', 'FAILED', '1', 'of', '3', '0.900', '0', '0']
    assert lines[3].split() == ['ball', '1', '0.850', '0', '1']
    assert lines[4] == 'table: mean_iou is 0.900; expected: at least 0.950'


def test_the_page_shows_the_worst_frames_and_escapes_names(tmp_path):
    pytest.importorskip('jinja2')
    result = checked(case(expect={'mean_iou': 0.95}), {'mean_iou': 0.97})
    result.objects = [ObjectScore(1, '<i>', 3, {'a': 1.0, 'b': 0.0})]
    result.name, result.tiles = '<b>', [Tile('frame 7: IoU 12 %', 'QUJD')]
    write_report(tmp_path / 'page.html', 'suite', [result])
    page = (tmp_path / 'page.html').read_text()
    assert 'data:image/jpeg;base64,QUJD' in page and 'frame 7: IoU 12 %' in page
    assert '<b>' not in page and '&lt;b&gt;' in page
    assert '<i>' not in page and 'points="0.0,1.0 840.0,47.0"' in page
    assert 'baseline: 0.970' in page


def test_an_unwritable_result_file_is_reported_before_anything_runs(tmp_path, capsys):
    suite = tmp_path / 'suite.yaml'
    suite.write_text('cases:\n- {name: a, input: absent.mcap, reference: {topic: /truth}}\n')
    (tmp_path / 'file').write_text('')
    for option, path in (('--json', tmp_path), ('--junit', tmp_path / 'file' / 'junit.xml')):
        assert main(['regress', str(suite), option, str(path)]) == 2
        said = capsys.readouterr()
        assert f'{path}: cannot be written' in said.err
        assert not said.out


def test_an_unwritable_file_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='name another file'):
        write_json(tmp_path / 'file' / 'results.json', Path('suite.yaml'), [])
