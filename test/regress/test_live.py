# SPDX-License-Identifier: MIT
"""`xmem-ros regress` through the real node over DDS: started for the case, or already running."""

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

import node_harness as robots
import numpy as np
from bag_suite import IMAGE_TOPIC, TRUTH_TOPIC, write_bag, write_scene
from regress_runs import SIZE, cut_off, regress, stepping_back_at
from scene_files import FOOTAGE, save_frame, save_mask

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.media import image_files, read_image
from xmem_ros.offline.tracking import track
from xmem_ros.parameters.table import Parameters, changed
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds

FRAMES = 10
TIMEOUT = robots.START_S  # [s] time limit of a node's start, on a busy machine


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bags')
    write_scene(folder / 'scene', frames=FRAMES)
    write_scene(folder / 'worse', frames=FRAMES, seed_shift=8)
    write_scene(folder / 'png', frames=FRAMES, compressed=True)
    for index, (frame, labels) in enumerate(RenderedScene((120, 216), frames=4)):
        save_frame(folder / 'frames' / f'{index:06d}.jpg', frame)
        save_mask(folder / 'masks' / f'{index:06d}.png', labels)
    return folder


@pytest.fixture(scope='module')
def running():
    """Keys of a case that use a node that runs already."""
    with robots.running(SIZE) as robot:
        yield {'runner': 'live', 'node': robot.prefix, 'timeout': TIMEOUT}


def case(name, **keys):
    return {'name': name, 'input': 'scene', 'reference': {'topic': TRUTH_TOPIC}} | keys


def test_a_node_started_for_the_case_has_the_results_of_the_offline_run(bags, capsys):
    live = {'runner': 'live', 'timeout': TIMEOUT, 'parameters': {'memory.top_k': 20, 'lost_after': 3, **SIZE}}
    png = {'input': 'png', 'image_topic': IMAGE_TOPIC}  # without loss, but over the other transport
    ages = {'age_ms': 60_000, 'processing_ms': 60_000, 'process_mb': 20_000, 'missing_frames': 0}
    cases = [
        case('offline', parameters=live['parameters']),
        case('live', **live, **png, expect={'mean_iou': 0.8, 'memory_mb': 2000, **ages}),
    ]
    code, results = regress(bags, cases)
    assert code == 0, capsys.readouterr().out
    offline, found = results['offline'], results['live']
    assert found['frames'] == offline['frames'] == FRAMES
    assert found['figures']['memory_mb'] == pytest.approx(offline['figures']['memory_mb'])
    assert found['figures']['mean_iou'] == pytest.approx(offline['figures']['mean_iou'], abs=0.002)  # rounding
    assert found['figures']['age_ms'] >= found['figures']['processing_ms'] > 0
    assert found['figures']['process_mb'] > found['figures']['memory_mb']


def test_a_running_node_is_used_for_bags_and_frames_and_worse_seeds_fail(bags, running):
    node = {**running, 'expect': {'mean_iou': 0.9}}
    frames = {'input': 'frames', 'seeds': 'masks/000000.png', 'reference': {'folder': 'masks'}}
    cases = [
        case('as it was', **node),
        case('worse', **node, input='worse'),
        case('frames', **node, **frames),
    ]
    code, results = regress(bags, cases)
    assert code == 1
    assert [result['state'] for result in results.values()] == ['met', 'unmet', 'met'], results
    assert 'process_mb' not in results['as it was']['figures']
    assert results['worse']['objects'].keys() == results['as it was']['objects'].keys()


@pytest.mark.skipif(not (FOOTAGE / 'bedroom').is_dir(), reason='needs ../shared/data/bedroom, which is not here')
def test_real_footage_gives_the_same_masks_live_as_offline(tmp_path, running):
    """The footage has no masks, so those of the offline run are the reference."""
    images = [read_image(path) for path in image_files(FOOTAGE / 'bedroom')[:FRAMES]]
    child = np.zeros(images[0].shape[:2], np.uint8)
    child[120:300, 250:330] = 1
    write_bag(tmp_path / 'scene', ((image, child) for image in images), ['child'])
    with open_recording(tmp_path / 'scene', IMAGE_TOPIC) as recording:
        for tracked in track(recording, recorded_seeds(recording), changed(Parameters(), SIZE)):
            save_mask(tmp_path / 'masks' / f'{tracked.frame.stamp_ns}.png', tracked.labels)
    live = {'image_topic': IMAGE_TOPIC, **running}
    code, results = regress(
        tmp_path, [case('bedroom', **live, reference={'folder': 'masks'}, expect={'mean_iou': 0.99})]
    )
    print(results['bedroom']['figures'])
    assert code == 0, results
    assert results['bedroom']['compared'] == FRAMES


def test_the_limit_of_frames_counts_dropped_images(tmp_path, running):
    write_scene(tmp_path / 'scene', frames=6, broken=(2, 3))
    cases = [
        case(runner['runner'], **runner, frames=3, expect={'mean_iou': 0.8, 'missing_frames': 1})
        for runner in ({'runner': 'offline', 'parameters': SIZE}, running)
    ]
    code, results = regress(tmp_path, cases)
    assert code == 0, results
    for found in results.values():
        assert (found['frames'], found['figures']['missing_frames']) == (2, 1)
        assert sum('has no result' in text for text in found['notes']) == 1


def test_frames_after_the_seeds_removed_an_object_do_not_count_for_it(tmp_path, running):
    write_scene(tmp_path / 'scene', frames=10)
    save_mask(tmp_path / 'first.png', next(iter(RenderedScene((120, 216), frames=1)))[1])
    entries = '[{frame: 0, labels: first.png, names: {1: ball, 2: mug, 3: box}}, {frame: 5, remove: [ball]}]'
    (tmp_path / 'seeds.yaml').write_text(entries)
    cases = [
        case(runner['runner'], **runner, seeds='seeds.yaml', expect={'mean_iou': 0.8, 'lost_objects': 0})
        for runner in ({'runner': 'offline', 'parameters': SIZE}, running)
    ]
    code, results = regress(tmp_path, cases, '--html', tmp_path / 'page.html')
    assert code == 0, results
    for found in results.values():
        assert {name: len(item['iou']) for name, item in found['objects'].items()} == {'ball': 4, 'mug': 9, 'box': 9}
        assert not any('no longer tracked' in text for text in found['notes'])
    assert 'IoU of ball 0 %' not in (tmp_path / 'page.html').read_text()


def test_a_truncated_recording_fails_in_live_cases_too(tmp_path, running):
    write_scene(tmp_path / 'scene', frames=15)
    cut_off(tmp_path / 'scene')
    live = {**running, 'expect': {'mean_iou': 0.8}}
    cases = [
        case('whole', **live),
        case('first', **live, frames=3),
        case('allowed', **live, frames=3, allow_damage=True),
    ]
    code, results = regress(tmp_path, cases)
    assert code == 1
    assert [result['state'] for result in results.values()] == ['unmet', 'unmet', 'met'], results
    for name in ('whole', 'first'):
        assert ['was cut off' in item['text'] for item in results[name]['checks'] if not item['met']] == [True]
    assert 3 < results['whole']['frames'] < 15
    assert any('was cut off' in text for text in results['allowed']['notes'])


def test_objects_that_the_node_forgets_count_as_wrong_and_its_warning_is_reported(tmp_path):
    write_scene(tmp_path / 'scene', frames=FRAMES, stamp_of=stepping_back_at(6))
    live = {'runner': 'live', 'timeout': TIMEOUT, 'parameters': {'on_time_jump': 'reset', **SIZE}}
    code, results = regress(tmp_path, [case('jump', **live, expect={'mean_iou': 0.8})])
    assert code == 1, results
    found = results['jump']
    assert {len(item['iou']) for item in found['objects'].values()} == {FRAMES - 1}
    assert any('is no longer tracked' in text for text in found['notes'])
    assert any('log of the node: stamps jumped back' in text for text in found['notes'])


def test_a_node_that_does_not_start_is_an_error_with_its_log(bags):
    cases = [
        case('weights', runner='live', parameters={'weights': 'no_such_weights'}, timeout=TIMEOUT),
        case('absent', runner='live', node='/nobody/xmem', timeout=2),
    ]
    code, results = regress(bags, cases)
    assert code == 1
    assert 'no_such_weights' in results['weights']['error']
    assert '/nobody/xmem' in results['absent']['error']
