# SPDX-License-Identifier: MIT
"""`xmem-ros regress` on real bags: equal results pass, worse results fail."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
from needs import require

require('rosbags.rosbag2')

from bag_suite import IMAGE_TOPIC, TRUTH_TOPIC, scene_case, write_bag, write_scene, write_suite
from regress_runs import SHORT, SIZE, regress, short_case, stepping_back_at, untrained_case
from scene_files import FOOTAGE, save_untrained_weights

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.media import image_files, read_image, read_mask

FRAMES = 112  # one object is absent in frames 65 to 105


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    """A folder with the bag `scene`."""
    folder = tmp_path_factory.mktemp('bags')
    write_scene(folder / 'scene', frames=FRAMES)
    return folder


def junit(path):
    """Name of each test → its failure's or error's text, '' if it passed."""
    tests = ET.parse(path).getroot().iter('testcase')
    return {
        test.get('name'): ''.join(child.text for child in test if child.tag in ('failure', 'error')) for test in tests
    }


def test_the_rendered_scene_is_tracked_offline_as_well_as_before(scene, capsys):
    page = scene / 'page.html'
    code, results = regress(scene, [scene_case(parameters=SIZE)], '--html', page, '--junit', scene / 'junit.xml')
    assert code == 0, capsys.readouterr().out
    found = results['scene']
    assert (found['frames'], found['compared']) == (FRAMES, FRAMES)
    assert set(found['objects']) == set(RenderedScene((120, 216)).names)
    assert 'recovery_frames' in found['figures']  # one object was absent
    assert found['figures']['memory_mb'] > 1
    assert junit(scene / 'junit.xml') == {'scene': ''}
    assert page.read_text().count('data:image/jpeg') == 4


def test_shifted_seeds_fail(scene, capsys):
    """Shifted seeds stand for a change that makes tracking worse."""
    baseline = scene / 'baseline.json'
    case = scene_case(expect={}, frames=10, parameters=SIZE)
    assert regress(scene, [case], '--baseline', baseline, '--update-baseline')[0] == 0
    assert regress(scene, [case], '--baseline', baseline)[0] == 0
    worse = scene / 'worse'
    worse.mkdir()
    write_scene(worse / 'scene', frames=10, seed_shift=6)
    code, results = regress(worse, [case], '--baseline', baseline, '--junit', worse / 'junit.xml')
    assert code == 1
    assert results['scene']['state'] == 'unmet'
    assert 'mean_iou is' in junit(worse / 'junit.xml')['scene']
    assert '; baseline: ' in junit(worse / 'junit.xml')['scene']
    assert 'FAILED' in capsys.readouterr().out


def test_a_reset_within_the_recording_fails_and_is_reported(tmp_path, capsys):
    """The camera's clock steps back, which resets the tracker: no object is left at the end."""
    write_scene(tmp_path / 'scene', frames=16, stamp_of=stepping_back_at(6))
    expect = {'mean_iou': 0.8, 'lost_objects': 0}
    case = short_case(parameters={'on_time_jump': 'reset'}, expect=expect)
    code, results = regress(tmp_path, [case, case | {'name': 'kept', 'parameters': {}}])
    assert (code, results['scene']['state'], results['kept']['state']) == (1, 'unmet', 'met'), results
    found = results['scene']
    assert {len(item['iou']) for item in found['objects'].values()} == {15}  # all frames except that of the seeds
    assert found['figures']['mean_iou'] == pytest.approx(5 / 15, abs=0.1)
    assert found['figures']['lost_objects'] == len(found['objects'])
    assert "frame 000006: object 1, 'ball', is no longer tracked" in capsys.readouterr().out
    assert any('stamps jumped back' in text for text in found['notes'])


def test_worse_weights_fail(short):
    weights = save_untrained_weights(short / 'untrained.safetensors')
    expect = {'mean_iou': 0.8}
    assert regress(short, [short_case(expect=expect)])[0] == 0
    code, results = regress(
        short, [short_case(expect=expect, parameters={'weights': str(weights)})], '--junit', short / 'junit.xml'
    )
    assert code == 1
    assert results['scene']['figures']['mean_iou'] < 0.8
    assert 'expected: at least 0.800' in junit(short / 'junit.xml')['scene']


def test_two_runs_give_the_same_figures(short):
    first, second = (regress(short, [untrained_case(short)])[1]['scene'] for _ in range(2))
    assert first['objects'] == second['objects']
    assert first['figures'] == second['figures']


def test_a_case_that_cannot_run_does_not_stop_the_others(short, capsys):
    (short / 'broken.mcap').write_bytes(b'no bag')
    write_bag(short / 'several', RenderedScene((120, 216), frames=2), [], image_topics=('/left/image', '/right/image'))
    cases = [
        untrained_case(short, name='absent', input='absent.mcap'),
        untrained_case(short, name='broken', input='broken.mcap'),
        untrained_case(short, name='topic', reference={'topic': '/no/such'}),
        untrained_case(short, name='folder', reference={'folder': 'masks'}),
        untrained_case(short, name='several', input='several'),
        untrained_case(short, name='sound'),
    ]
    code, results = regress(short, cases, '--junit', short / 'junit.xml')
    assert code == 1
    assert [result['state'] for result in results.values()] == ['error'] * 5 + ['met']
    for name, said in (
        ('absent', 'absent.mcap'),
        ('broken', 'broken.mcap'),
        ('topic', '/no/such'),
        ('folder', 'masks'),
        ('several', '(image_topic)'),
    ):
        assert said in results[name]['error']
        assert 'fault of xmem_ros' not in results[name]['error']
    assert junit(short / 'junit.xml')['absent'] == results['absent']['error']
    assert 'Traceback' not in ''.join(capsys.readouterr())


def test_an_internal_error_is_a_result_of_the_case(short, monkeypatch):
    monkeypatch.setattr('xmem_ros.regress.run.overlap', lambda *_: 1 / 0)
    code, results = regress(short, [untrained_case(short)])
    assert code == 1
    assert 'ZeroDivisionError' in results['scene']['error']


def test_cases_are_selected_by_name(short, capsys):
    cases = [untrained_case(short, name='a'), untrained_case(short, name='b'), untrained_case(short, name='c')]
    code, results = regress(short, cases, '--case', 'c', '--case', 'a')
    assert (code, list(results)) == (0, ['a', 'c'])
    assert regress(short, cases, '--case', 'd') == (2, {})
    assert "no case 'd'; known: a, b, c" in capsys.readouterr().err


def test_a_baseline_of_the_suite_is_kept_for_cases_that_did_not_run(short, capsys):
    cases = [untrained_case(short, name='a', frames=4), untrained_case(short, name='b', frames=4)]
    suite = {'baseline': 'baseline.json'}
    assert regress(short, cases, **suite) == (2, {})
    assert 'no such baseline; create it (--update-baseline)' in capsys.readouterr().err
    assert regress(short, cases, '--update-baseline')[0] == 2  # and where?
    assert regress(short, cases, '--update-baseline', **suite)[0] == 0
    path = short / 'baseline.json'
    stored = json.loads(path.read_text())
    stored['cases']['b']['figures']['mean_iou'] = 2.0  # impossibly good
    path.write_text(json.dumps(stored))
    assert regress(short, cases, '--case', 'a', '--update-baseline', **suite)[0] == 0
    assert json.loads(path.read_text()) == stored
    code, results = regress(short, cases, **suite)
    assert (code, results['a']['state'], results['b']['state']) == (1, 'met', 'unmet')
    assert regress(short, cases, '--update-baseline', **suite)[0] == 0  # worse figures are accepted
    assert regress(short, cases, **suite)[0] == 0
    assert regress(short, [*cases, untrained_case(short, name='new', frames=4)], **suite)[0] == 0
    said = capsys.readouterr().out
    assert 'not in the baseline yet' in said
    assert '--update-baseline adds them' in said


def test_limits_also_hold_while_the_baseline_is_updated(short):
    case = untrained_case(short, expect={'mean_iou': 1.0}, frames=4)
    assert regress(short, [case], '--update-baseline', '--baseline', short / 'baseline.json')[0] == 1
    assert (short / 'baseline.json').exists()


def test_seeds_can_be_boxes_and_objects_are_matched_by_name(short):
    scene = RenderedScene((120, 216), frames=SHORT)
    ys, xs = np.nonzero(scene[0][1] == 1)
    box = [int(xs.min()) - 2, int(ys.min()) - 2, int(np.ptp(xs)) + 5, int(np.ptp(ys)) + 5]
    case = short_case(
        seeds={'boxes': {'thing': box}},
        reference={'topic': TRUTH_TOPIC, 'objects': {1: 'thing'}},
        expect={'mean_iou': 0.8, 'object_iou': {'thing': 0.8}},
    )
    code, results = regress(short, [case])
    assert code == 0, results
    assert list(results['scene']['objects']) == ['thing']


def test_compressed_images_and_masks_give_the_same_figures(short):
    write_scene(short / 'png', frames=SHORT, compressed=True)
    code, results = regress(
        short,
        [untrained_case(short, name='raw'), untrained_case(short, name='png', input='png', image_topic=IMAGE_TOPIC)],
    )
    assert code == 0, results
    assert results['raw']['figures'] == results['png']['figures']


def test_offline_cases_run_without_ros_and_live_cases_report_that_it_is_missing(short):
    cases = [untrained_case(short, name='offline', frames=3), untrained_case(short, name='live', runner='live')]
    path = write_suite(short / 'suite.yaml', cases)
    without = "import sys; sys.modules |= dict.fromkeys(('rclpy', 'xmem_ros.msg', 'sensor_msgs')); "
    command = f'{without}from xmem_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    arguments = [sys.executable, '-c', command, 'regress', str(path), '--junit', str(short / 'junit.xml')]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert junit(short / 'junit.xml')['offline'] == ''
    assert 'live needs rclpy, which is not installed here: source' in junit(short / 'junit.xml')['live']


@pytest.mark.skipif(not (FOOTAGE / 'davis-val').is_dir(), reason='needs ../shared/data/davis-val, which is not here')
def test_real_footage_meets_its_limits(tmp_path):
    def frames(sequence):
        for path in image_files(FOOTAGE / 'davis-val' / 'JPEGImages' / sequence)[:12]:
            mask = read_mask(FOOTAGE / 'davis-val' / 'Annotations' / sequence / f'{path.stem}.png')
            frame = read_image(path)
            size = (frame.shape[1] // 2, frame.shape[0] // 2)
            yield (
                cv2.resize(frame, size, interpolation=cv2.INTER_AREA),
                cv2.resize((mask > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST),
            )

    for sequence in ('camel', 'blackswan'):
        write_bag(tmp_path / sequence, frames(sequence), [sequence])
    cases = [
        {'name': name, 'input': name, 'image_topic': IMAGE_TOPIC, 'reference': {'topic': TRUTH_TOPIC}}
        for name in ('camel', 'blackswan')
    ]
    code, results = regress(tmp_path, cases, defaults={'expect': {'mean_iou': 0.85, 'id_switches': 0}})
    print({name: result['figures'] for name, result in results.items()})
    assert code == 0, results
