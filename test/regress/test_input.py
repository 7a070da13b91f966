# SPDX-License-Identifier: MIT
"""Inputs of `xmem-ros regress`: masks of frames; incomplete recordings and references."""

import json

import numpy as np
from needs import require

require('rosbags.rosbag2')

import bag_suite
from bag_suite import TRUTH_TOPIC, write_scene
from regress_runs import SHORT, cut_off, regress, untrained_case
from scene_files import save_frame, save_mask
from video_files import disc, packets, write_video

from xmem_ros.demo.scene import RenderedScene


def test_a_recording_or_a_reference_that_became_shorter_is_caught(short, capsys):
    baseline = short / 'baseline.json'
    assert regress(short, [untrained_case(short)], '--baseline', baseline, '--update-baseline')[0] == 0
    assert regress(short, [untrained_case(short)], '--baseline', baseline)[0] == 0
    write_scene(short / 'fewer_masks', frames=SHORT, masks=6)
    write_scene(short / 'fewer_images', frames=5)
    capsys.readouterr()
    for name, faults in (
        ('fewer_masks', [f'compared_frames is 6 frames; baseline: {SHORT} frames, tolerance: 0']),
        (
            'fewer_images',
            [f'{kind}_frames is 5 frames; baseline: {SHORT} frames, tolerance: 0' for kind in ('tracked', 'compared')],
        ),
    ):
        code, results = regress(short, [untrained_case(short, input=name)], '--baseline', baseline)
        assert code == 1
        assert [item['text'] for item in results['scene']['checks'] if not item['met']] == faults
    code, results = regress(short, [untrained_case(short, input='fewer_masks', expect={'compared_frames': SHORT})])
    assert code == 1
    assert results['scene']['checks'][0]['text'] == f'compared_frames is 6 frames; expected: at least {SHORT} frames'


def test_a_baseline_without_numbers_of_frames_is_compared_with_a_note(short, capsys):
    baseline, case = short / 'baseline.json', untrained_case(short, frames=4)
    assert regress(short, [case], '--baseline', baseline, '--update-baseline')[0] == 0
    stored = json.loads(baseline.read_text())
    for name in ('tracked_frames', 'compared_frames'):
        assert stored['cases']['scene']['figures'].pop(name) == 4
    baseline.write_text(json.dumps(stored))
    capsys.readouterr()
    assert regress(short, [case], '--baseline', baseline)[0] == 0
    said = capsys.readouterr().out
    assert 'the baseline lacks tracked_frames and compared_frames' in said
    assert '--update-baseline adds them' in said
    assert regress(short, [case], '--baseline', baseline, '--update-baseline')[0] == 0
    assert regress(short, [untrained_case(short, frames=3)], '--baseline', baseline)[0] == 1


def test_a_truncated_recording_fails_unless_the_case_allows_it(tmp_path, capsys):
    """Seeds of an image in the lost part are noted, too."""
    write_scene(tmp_path / 'scene', frames=60)
    cut_off(tmp_path / 'scene')
    baseline = tmp_path / 'baseline.json'
    save_mask(tmp_path / 'first.png', RenderedScene((120, 216), frames=1)[0][1])
    (tmp_path / 'seeds.yaml').write_text('[{frame: 0, labels: first.png}, {frame: 59, remove: [1]}]')
    case = untrained_case(tmp_path, seeds='seeds.yaml')
    code, results = regress(tmp_path, [case], '--baseline', baseline, '--update-baseline')
    assert code == 1, capsys.readouterr().out
    assert not baseline.exists()
    (fault,) = (item['text'] for item in results['scene']['checks'] if not item['met'])
    assert 'was cut off' in fault
    assert 'allow_damage: true' in fault
    assert any('entry 2: the recording ends before image 59' in text for text in results['scene']['notes'])
    code, results = regress(tmp_path, [{**case, 'allow_damage': True}])
    assert code == 0, results
    assert any('was cut off' in text for text in results['scene']['notes'])


def test_a_truncated_reference_bag_fails_unless_the_case_allows_it(short):
    write_scene(short / 'truth', frames=60)
    cut_off(short / 'truth')
    case = untrained_case(short, reference={'bag': 'truth', 'topic': TRUTH_TOPIC})
    code, results = regress(short, [case])
    assert code == 1
    assert f'{short / "truth"}' in results['scene']['checks'][0]['text']
    assert regress(short, [{**case, 'allow_damage': True}])[0] == 0


def test_a_damaged_video_fails_unless_the_case_allows_it(tmp_path):
    path = write_video(tmp_path / 'film.avi', 'mjpeg', 'yuvj420p')
    data = bytearray(path.read_bytes())
    place, size, *_ = packets(path)[5]
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    save_mask(tmp_path / 'masks' / '00000.png', (disc(0).min(axis=2) > 150).astype(np.uint8))
    save_mask(tmp_path / 'masks' / '00004.png', (disc(4).min(axis=2) > 150).astype(np.uint8))
    case = untrained_case(
        tmp_path, name='film', input='film.avi', seeds='masks/00000.png', reference={'folder': 'masks'}, expect={}
    )
    code, results = regress(tmp_path, [case])
    assert code == 1
    (fault,) = (item['text'] for item in results['film']['checks'] if not item['met'])
    assert f'{path}: 23 of 24 frames could be read' in fault
    code, results = regress(tmp_path, [{**case, 'allow_damage': True}])
    assert code == 0, results
    assert any('23 of 24 frames could be read' in text for text in results['film']['notes'])


def test_frames_in_a_folder_are_compared_with_masks_of_the_same_names(tmp_path):
    scene = RenderedScene((120, 216), frames=SHORT, objects=2)
    for index, (frame, labels) in enumerate(scene):
        save_frame(tmp_path / 'frames' / f'img_{index}.jpg', frame)
        if index % 3 == 0:
            save_mask(tmp_path / 'masks' / f'img_{index}.png', labels)
    case = {
        'name': 'frames',
        'input': 'frames',
        'seeds': 'masks/img_0.png',
        'reference': {'folder': 'masks'},
        'expect': {'mean_iou': 0.8},
    }
    code, results = regress(tmp_path, [case])
    assert code == 0, results
    assert (results['frames']['frames'], results['frames']['compared']) == (SHORT, 4)


def test_images_of_a_bag_are_compared_with_masks_named_by_stamp_or_number(short):
    scene = RenderedScene((120, 216), frames=SHORT)
    names = [
        lambda index, stamp: f'{index:05d}',
        lambda index, stamp: str(stamp),
        lambda index, stamp: f'{stamp // 10**9}.{stamp % 10**9:09d}',
    ]
    for number, name in enumerate(names):
        for index, (_, labels) in enumerate(scene):
            stamp = bag_suite.START_NS + index * bag_suite.FRAME_NS
            save_mask(short / f'masks_{number}' / f'{name(index, stamp)}.png', labels)
    cases = [untrained_case(short, name=str(k), reference={'folder': f'masks_{k}'}) for k in range(len(names))]
    code, results = regress(short, [*cases, untrained_case(short, name='topic')])
    assert code == 0
    assert all(result['compared'] == SHORT for result in results.values())
    figures = [{**result['figures']} for result in results.values()]
    assert figures[:-1] == figures[1:]


def test_masks_with_ambiguous_stamps_are_refused(tmp_path):
    """Otherwise frames would silently be compared with the last mask of their stamp."""

    def own(index):
        return bag_suite.START_NS + index * bag_suite.FRAME_NS

    def pairs(index):
        return own(index // 2)

    write_scene(tmp_path / 'zero', frames=6, truth_stamp_of=lambda index: own(index) if index < 2 else 0)
    write_scene(tmp_path / 'equal', frames=6, truth_stamp_of=pairs)
    write_scene(tmp_path / 'images', frames=6, stamp_of=pairs, truth_stamp_of=own)
    for index, (_, labels) in enumerate(RenderedScene((120, 216), frames=6)):
        save_mask(tmp_path / 'numbers' / f'{index:05d}.png', labels)
        save_mask(tmp_path / 'stamps' / f'{own(index)}.png', labels)
    cases = [untrained_case(tmp_path, name=name, input=name) for name in ('zero', 'equal', 'images')]
    cases += [
        untrained_case(tmp_path, name=name, input='images', reference={'folder': name})
        for name in ('numbers', 'stamps')
    ]
    code, results = regress(tmp_path, cases)
    assert code == 1
    assert '/truth/labels: 4 of 6 masks have the stamp 0' in results['zero']['error']
    assert '/truth/labels: several of 6 masks' in results['equal']['error']
    for name in ('images', 'stamps'):
        assert f'frames 000000 and 000001 both have the stamp {own(0)} ns' in results[name]['error']
    for name in ('zero', 'equal', 'images', 'stamps'):
        assert 'named by frame number (00000.png)' in results[name]['error']
    assert results['numbers']['state'] == 'met', results['numbers']
    assert results['numbers']['compared'] == 6


def test_a_file_named_0_is_not_the_mask_of_images_without_stamps(tmp_path):
    write_scene(tmp_path / 'scene', frames=4, stamp_of=lambda _: 0)
    first = RenderedScene((120, 216), frames=1)[0][1]
    save_mask(tmp_path / 'masks' / '0.png', first)
    code, results = regress(tmp_path, [untrained_case(tmp_path, seeds='masks/0.png', reference={'folder': 'masks'})])
    assert code == 1
    assert 'none of 4 frames has a reference mask' in results['scene']['error']


def test_masks_without_a_frame_or_of_another_size_are_reported(short):
    save_mask(short / 'others' / 'img_1.png', np.ones((120, 216), np.uint8))
    save_mask(short / 'small' / '00001.png', np.ones((60, 108), np.uint8))
    cases = [untrained_case(short, name=name, reference={'folder': name}) for name in ('others', 'small')]
    code, results = regress(short, cases)
    assert code == 1
    assert 'img_1.png' in results['others']['error'] and 'the stamp' in results['others']['error']
    assert '108×60 px, the frame 216×120' in results['small']['error']


def test_a_reference_of_only_the_seeded_frame_is_refused(short):
    save_mask(short / 'first' / '00000.png', RenderedScene((120, 216), frames=1)[0][1])
    code, results = regress(short, [untrained_case(short, reference={'folder': 'first'})])
    assert code == 1
    assert 'no frame can be compared; none of 1 frames with a reference mask' in results['scene']['error']
