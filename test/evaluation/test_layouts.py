# SPDX-License-Identifier: MIT
"""The published data sets: their layouts, and every rule of their protocols."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from needs import require
from published_layouts import LATE, LENGTH, SIZE, clip, davis, five, long_video, lvos, mose, youtube
from scene_files import save_mask, save_sequence, save_untrained_weights

from xmem_ros.errors import FrameError, ParameterError, SeedError
from xmem_ros.evaluation.datasets import DATASETS, Sequence, read_dataset
from xmem_ros.evaluation.datasets.options import ReadOptions
from xmem_ros.evaluation.runner import evaluate
from xmem_ros.evaluation.settings import Settings
from xmem_ros.media import read_image, read_mask
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.config import COMPACT, XMEM
from xmem_ros.tracker import Tracker, TrackerConfig
from xmem_ros.weights.checkpoint import load_network

require('vos_benchmark')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(save_untrained_weights(tmp_path_factory.mktemp('weights') / 'untrained.safetensors'))


def run(dataset, root, weights, output, **options):
    options = {'size': 64, 'device': 'cpu', 'progress': False, **options}
    return evaluate(dataset, root, weights=weights, output=output, **options)


@pytest.mark.parametrize('end', ['1000000000000', '1e999', '9' * 400])
def test_a_frame_range_beyond_the_images_is_refused(tmp_path, end):
    """The range is compared without being expanded."""
    lvos(tmp_path)
    listing = next(tmp_path.rglob('*meta.json'))
    content = json.loads(listing.read_text())
    for video in content['videos'].values():
        for item in video['objects'].values():
            item['frame_range']['end'] = 'END'
    listing.write_text(json.dumps(content).replace('"END"', end))
    with pytest.raises(ParameterError, match=r'meta\.json: sequence'):
        read_dataset('lvos', tmp_path, ReadOptions('val', 480))


def by_hand(weights, frames, seeds, objects, *, memory_every=5, size=64, output_size=None):
    """Track frames directly with the published memory policy; seeds: index → {value: mask}."""
    memory = MemoryConfig().published()
    config = TrackerConfig(
        size=size, precision='float32', max_objects=objects, memory_every=memory_every, memory=memory
    )
    tracker = Tracker(load_network(Path(weights)), config, 'cpu')
    values, found = np.zeros(256, np.uint8), []
    for index, frame in enumerate(frames):
        new = seeds.get(index, {})
        masks = {str(value): mask for value, mask in new.items()}
        result = tracker.step(frame, masks, last=index == len(frames) - 1, output_size=output_size)
        label_of = {item.id: item.label for item in result.objects}
        for value, key in zip(new, result.ids, strict=True):
            values[label_of[key]] = value
        found.append(values[result.labels])
    return found


def written(folder):
    return {path.stem: read_mask(path) for path in sorted(folder.glob('*.png'))}


def frames_of(folder):
    return [read_image(path) for path in sorted(folder.glob('*.jpg'))]


def objects_in(labels):
    return {value: labels == value for value in np.unique(labels).tolist() if value}


# --- DAVIS


@pytest.mark.parametrize('ignore_void', [False, True])
def test_the_masks_of_davis_2016_keep_its_values_and_are_scored(tmp_path, weights, ignore_void):
    """Its masks have only 0 and 255, so 255 is the object and never void."""
    davis(tmp_path / '2016', binary=True)
    result = run('davis2016', tmp_path / '2016', weights, tmp_path / 'out', ignore_void=ignore_void)
    masks = written(tmp_path / 'out' / 'a')
    assert list(masks) == five(range(LENGTH))
    assert {value for mask in masks.values() for value in np.unique(mask).tolist()} <= {0, 255}
    assert result['sequences']['a']['frames'] == LENGTH - 2
    assert list(result['sequences']['a']['objects']) == ['255']
    assert 'zip' not in result


def test_the_list_of_davis_2016_is_found_in_each_known_place(tmp_path):
    davis(tmp_path / '2016', binary=True, names=('a', 'b'))

    def names():
        return [sequence.name for sequence in read_dataset('davis2016', tmp_path / '2016', ReadOptions())]

    assert names() == ['a', 'b']
    own = tmp_path / '2016' / 'ImageSets' / '480p' / 'val.txt'
    own.write_text('b\n')
    assert names() == ['b']
    own.unlink()
    other = tmp_path / '2017' / 'trainval' / 'ImageSets' / '2016' / 'val.txt'
    other.parent.mkdir(parents=True)
    other.write_text('b\n')
    assert names() == ['b']
    other.unlink()
    assert names() == ['a', 'b']


def test_davis_2017_given_as_2016_is_refused(tmp_path):
    part = davis(tmp_path)
    with pytest.raises(SeedError, match=r'Annotations/480p/a/00000\.png: shows 2 objects.*data set davis2017'):
        read_dataset('davis2016', part, ReadOptions())


def test_davis_2017_val_scores_every_object(tmp_path, weights):
    davis(tmp_path)
    result = run('davis2017', tmp_path, weights, tmp_path / 'out')
    assert list(result['sequences']['a']['objects']) == ['1', '2']
    assert result['J&F'] is not None


def test_one_part_of_davis_2017_is_a_valid_root(tmp_path):
    part = davis(tmp_path)
    for root in (tmp_path, part):
        (sequence,) = read_dataset('davis2017', root, ReadOptions())
        assert len(sequence.frames) == LENGTH


def test_davis_2017_test_dev_is_zipped_for_its_server_and_not_scored(tmp_path, weights):
    davis(tmp_path, split='test-dev')
    result = run('davis2017', tmp_path, weights, tmp_path / 'out', split='test-dev')
    assert (result['J&F'], result['sequences']['a']['J&F']) == (None, None)
    assert result['zip'] == str(tmp_path / 'out' / 'davis2017-test-dev.zip')
    with zipfile.ZipFile(result['zip']) as archive:
        assert archive.namelist() == [f'a/{stem}.png' for stem in five(range(LENGTH))]


@pytest.mark.parametrize(
    ('size', 'folder'), [(480, '480p'), (600, 'Full-Resolution'), (720, 'Full-Resolution'), (0, 'Full-Resolution')]
)
def test_davis_reads_full_resolution_at_other_sizes_than_480(tmp_path, size, folder):
    davis(tmp_path)
    (sequence,) = read_dataset('davis2017', tmp_path, ReadOptions(size=size))
    assert {path.parent.parent.name for path in sequence.frames} == {folder}
    assert next(iter(sequence.seeds.values())).path.parent.parent.name == folder
    assert {path.parent.parent.name for path in sequence.truth.values()} == {'480p'}
    assert sequence.output_size() == (None if size == 480 else SIZE)


def test_davis_at_another_size_writes_masks_of_the_480p_size(tmp_path, weights):
    part = davis(tmp_path)
    run('davis2017', tmp_path, weights, tmp_path / 'out', size=96)
    masks = written(tmp_path / 'out' / 'a')
    assert {mask.shape for mask in masks.values()} == {SIZE}
    frames = frames_of(part / 'JPEGImages' / 'Full-Resolution' / 'a')
    assert frames[0].shape[:2] == (2 * SIZE[0], 2 * SIZE[1])
    seed = objects_in(read_mask(part / 'Annotations' / 'Full-Resolution' / 'a' / '00000.png'))
    expected = by_hand(weights, frames, {0: seed}, 2, size=96, output_size=SIZE)
    np.testing.assert_array_equal(np.stack(list(masks.values())), np.stack(expected))


def test_davis_without_full_resolution_is_refused_above_480_px(tmp_path):
    davis(tmp_path, large=False)
    (sequence,) = read_dataset('davis2017', tmp_path, ReadOptions(size=240))
    assert sequence.frames[0].parent.parent.name == '480p'
    for size in (600, 0):
        with pytest.raises(ParameterError, match='JPEGImages/Full-Resolution: not found'):
            read_dataset('davis2017', tmp_path, ReadOptions(size=size))


def test_a_missing_mask_of_davis_is_named(tmp_path):
    part = davis(tmp_path)
    (part / 'Annotations' / '480p' / 'a' / '00004.png').unlink()
    with pytest.raises(SeedError, match=r'Annotations/480p/a/00004\.png: no such mask'):
        read_dataset('davis2017', tmp_path, ReadOptions())


# --- YouTube-VOS


@pytest.mark.parametrize('dataset', ['youtube2018', 'youtube2019'])
def test_youtube_tracks_every_frame_and_writes_the_listed_ones(tmp_path, weights, dataset):
    youtube(tmp_path)
    result = run(dataset, tmp_path, weights, tmp_path / 'out')
    masks = written(tmp_path / 'out' / 'Annotations' / 'v1')
    assert list(masks) == ['00001', '00006', '00011']
    with zipfile.ZipFile(result['zip']) as archive:
        assert archive.namelist() == [f'Annotations/v1/{stem}.png' for stem in masks]
    frames = frames_of(tmp_path / 'all_frames' / 'valid_all_frames' / 'JPEGImages' / 'v1')[1:]
    labels = [labels for _, labels in clip()]
    seeds = {0: {1: labels[0] == 1}, LATE: {2: labels[LATE] == 2}}
    expected = by_hand(weights, frames, seeds, 2)
    np.testing.assert_array_equal(np.stack(list(masks.values())), np.stack(expected[0::5]))


def test_the_mask_of_a_new_youtube_object_does_not_erase_the_others(tmp_path, weights):
    """0 in the mask of a later object does not mean background; tracked objects stay there."""
    youtube(tmp_path)
    run('youtube2018', tmp_path, weights, tmp_path / 'out', save_all=True)
    masks = written(tmp_path / 'out' / 'Annotations' / 'v1')
    assert len(masks) == LENGTH
    begun = masks[f'{1 + LATE:05d}']
    new = clip()[LATE][1] == 2
    np.testing.assert_array_equal(begun == 2, new)
    # the first object is tracked on the same frame, outside the new one, as if nothing had begun
    frames = frames_of(tmp_path / 'all_frames' / 'valid_all_frames' / 'JPEGImages' / 'v1')[1 : 2 + LATE]
    alone = by_hand(weights, [*frames, frames[-1]], {0: {1: clip()[0][1] == 1}}, 1)[LATE]
    np.testing.assert_array_equal(begun[~new] == 1, alone[~new] == 1)


def test_sparse_youtube_tracks_only_the_annotated_frames(tmp_path, weights):
    youtube(tmp_path)
    run('youtube2018', tmp_path, weights, tmp_path / 'out', sparse=True)
    masks = written(tmp_path / 'out' / 'Annotations' / 'v1')
    labels = [labels for _, labels in clip()]
    frames = frames_of(tmp_path / 'valid' / 'JPEGImages' / 'v1')
    expected = by_hand(weights, frames, {0: {1: labels[0] == 1}, 1: {2: labels[LATE] == 2}}, 2)
    np.testing.assert_array_equal(np.stack(list(masks.values())), np.stack(expected))


def test_youtube_refuses_a_mask_that_shows_a_known_object_again(tmp_path, weights):
    youtube(tmp_path)
    save_mask(tmp_path / 'valid' / 'Annotations' / 'v1' / '00009.png', clip()[8][1])
    with pytest.raises(SeedError, match=r'00009\.png: shows object 1 again, which began in 00001\.png'):
        run('youtube2018', tmp_path, weights, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_an_incomplete_or_damaged_list_of_youtube_is_refused(tmp_path):
    youtube(tmp_path)
    listing = tmp_path / 'valid' / 'meta.json'
    listing.write_text(json.dumps({'videos': {}}))
    with pytest.raises(ParameterError, match=r'meta\.json: does not list the sequence .*v1'):
        read_dataset('youtube2018', tmp_path, ReadOptions())
    listing.write_text(json.dumps({'videos': {'v1': {}}}))
    with pytest.raises(ParameterError, match=r'meta\.json: sequence v1 lacks the frames of its objects'):
        read_dataset('youtube2018', tmp_path, ReadOptions())
    listing.write_text('{"videos": ')
    with pytest.raises(ParameterError, match=r'meta\.json: not readable as JSON'):
        read_dataset('youtube2018', tmp_path, ReadOptions())


# --- MOSE


@pytest.mark.parametrize('masks', [1, LENGTH])
def test_mose_is_seeded_from_the_first_frame_only(tmp_path, weights, masks):
    mose(tmp_path, masks=masks)
    result = run('mose', tmp_path, weights, tmp_path / 'out')
    found = written(tmp_path / 'out' / 'm1')
    assert list(found) == five(range(LENGTH))
    frames = frames_of(tmp_path / 'valid' / 'JPEGImages' / 'm1')
    expected = by_hand(weights, frames, {0: {1: clip()[0][1] == 1}}, 1)
    np.testing.assert_array_equal(np.stack(list(found.values())), np.stack(expected))
    with zipfile.ZipFile(result['zip']) as archive:
        assert archive.namelist()[0] == 'm1/00000.png'


def test_with_late_objects_each_object_is_seeded_by_the_first_mask_that_shows_it(tmp_path, weights):
    mose(tmp_path, masks=LENGTH)
    result = run('mose', tmp_path, weights, tmp_path / 'out', late_objects=True)
    labels = [labels for _, labels in clip()]
    frames = frames_of(tmp_path / 'valid' / 'JPEGImages' / 'm1')
    expected = by_hand(weights, frames, {0: {1: labels[0] == 1}, 1: {2: labels[1] == 2}}, 2)
    found = np.stack(list(written(tmp_path / 'out' / 'm1').values()))
    np.testing.assert_array_equal(found, np.stack(expected))
    assert result['sequences']['m1']['unseeded'] == []
    with pytest.raises(ParameterError, match='defines the seeds of late objects itself'):
        Settings(dataset='davis2017', root=tmp_path, late_objects=True)


def test_ignored_void_is_not_an_object(tmp_path, weights):
    save_sequence(tmp_path, frames=4)
    for stem in ('00001', '00002'):
        path = tmp_path / 'Annotations' / 'toys' / f'{stem}.png'
        mask = read_mask(path)
        mask[:9] = 255
        save_mask(path, mask)
    options = {'late_objects': True, 'ignore_void': True}
    assert set(run('generic', tmp_path, weights, tmp_path / 'out', **options)['sequences']['toys']['objects']) == {
        '1',
        '2',
    }
    result = run('generic', tmp_path, weights, tmp_path / 'all', late_objects=True)
    assert set(result['sequences']['toys']['objects']) == {'1', '2', '255'}
    assert result['sequences']['toys']['unseeded'] == []


# --- Long-time Video


@pytest.mark.parametrize(('dataset', 'part'), [('longvideo1', 'long_video'), ('longvideo3', 'long_video_x3')])
def test_long_video_tracks_every_frame_and_writes_and_scores_the_annotated_ones(tmp_path, weights, dataset, part):
    stems = long_video(tmp_path, part)
    result = run(dataset, tmp_path, weights, tmp_path / 'out')
    found = written(tmp_path / 'out' / 'rat')
    assert list(found) == stems
    assert result['sequences']['rat']['frames'] == len(stems) - 2
    every = 10 if dataset == 'longvideo3' else 5
    assert result['memory_every'] == every
    frames = frames_of(tmp_path / part / 'JPEGImages' / 'rat')
    expected = by_hand(weights, frames, {0: objects_in(clip()[0][1])}, 2, memory_every=every)
    np.testing.assert_array_equal(np.stack(list(found.values())), np.stack(expected[::3]))


def test_the_automatic_size_depends_on_data_set_and_network(tmp_path):
    def size(dataset, network, **options):
        return Settings(dataset=dataset, root=tmp_path, **options).runs(network)[0].size

    assert size('davis2017', XMEM) == 480
    assert size('longvideo1', XMEM) == size('longvideo3', XMEM) == 0
    assert size('davis2017', COMPACT) == size('longvideo1', COMPACT) == 240
    assert size('davis2017', COMPACT, size='full') == 0
    assert size('longvideo1', XMEM, size=600) == 600


def test_longvideo3_has_a_memory_frame_every_ten_frames_by_default(tmp_path):
    for dataset in DATASETS:
        every = Settings(dataset=dataset, root=tmp_path).record(XMEM)['memory_every']
        assert every == (10 if dataset == 'longvideo3' else 5)
    assert Settings(dataset='longvideo3', root=tmp_path, memory_every=3).record(XMEM)['memory_every'] == 3


# --- LVOS


@pytest.mark.parametrize('step', [1, 5])
def test_each_lvos_object_is_scored_from_its_own_frame_at_every_fifth_number(tmp_path, weights, step):
    """The data set's tool scores the numbers range(int(start), int(end), 5)."""
    stems = lvos(tmp_path, step=step)
    late = 1 + step * LATE
    numbers = {1: range(1, 1 + step * (LENGTH - 1), 5), 2: range(late, 1 + step * (LENGTH - 1), 5)}
    (sequence,) = read_dataset('lvos', tmp_path, ReadOptions())
    assert {stem: seed.objects for stem, seed in sequence.seeds.items()} == {'00000001': {1}, f'{late:08d}': {2}}
    assert sequence.scored_objects == {value: tuple(f'{n:08d}' for n in some) for value, some in numbers.items()}
    result = run('lvos', tmp_path, weights, tmp_path / 'out')
    found = written(tmp_path / 'out' / 'Annotations' / 'l1')
    assert list(found) == [f'{number:08d}' for number in numbers[1]]
    labels = [labels for _, labels in clip()]
    frames = frames_of(tmp_path / 'valid' / 'JPEGImages' / 'l1')
    seeds = {0: {1: labels[0] == 1}, LATE: {2: labels[LATE] == 2}}
    expected = dict(zip(stems, by_hand(weights, frames, seeds, 2), strict=True))
    np.testing.assert_array_equal(np.stack(list(found.values())), np.stack([expected[stem] for stem in found]))
    assert set(result['sequences']['l1']['objects']) == {'1', '2'}


@pytest.mark.parametrize('listed', [True, False])
def test_objects_of_lvos_test_begin_where_they_are_first_shown_and_are_not_scored(tmp_path, listed):
    stems = lvos(tmp_path, part='test', listed=listed, step=3)  # numbers 1, 4, 7, …, so not in steps of five
    (sequence,) = read_dataset('lvos', tmp_path, ReadOptions(split='test'))
    assert {stem: seed.objects for stem, seed in sequence.seeds.items()} == {stems[0]: {1}, stems[LATE]: {2}}
    assert (sequence.scored, sequence.truth, list(sequence.written)) == ((), {}, stems)


def test_lvos_val_without_its_list_is_refused(tmp_path):
    lvos(tmp_path, listed=False)
    with pytest.raises(ParameterError, match=r'valid/meta\.json: not found; the root of LVOS'):
        read_dataset('lvos', tmp_path, ReadOptions())


def test_a_list_of_lvos_that_does_not_match_its_files_is_refused(tmp_path):
    lvos(tmp_path)
    listing = tmp_path / 'valid' / 'meta.json'
    whole = listing.read_text()
    listing.write_text(whole.replace('00000006', '00000600'))
    with pytest.raises(
        ParameterError, match=r'meta\.json: sequence l1 has object 2 at frame 600, .*JPEGImages/l1 has no'
    ):
        read_dataset('lvos', tmp_path, ReadOptions())
    listing.write_text(whole.replace('00000012', '00000017'))  # the range now includes 11 and 16
    with pytest.raises(ParameterError, match=r'object 1 at frame 16'):
        read_dataset('lvos', tmp_path, ReadOptions())
    listing.write_text(whole.replace('frame_range', 'frames'))
    with pytest.raises(ParameterError, match=r'meta\.json: sequence l1 lacks the frame ranges'):
        read_dataset('lvos', tmp_path, ReadOptions())
    listing.write_text(whole)
    (tmp_path / 'valid' / 'Annotations' / 'l1' / '00000011.png').unlink()
    with pytest.raises(SeedError, match=r'l1/00000011\.png: no such mask'):
        read_dataset('lvos', tmp_path, ReadOptions())


# --- lists that are incomplete, damaged or hostile


@pytest.mark.parametrize(('dataset', 'build'), [('youtube2019', youtube), ('lvos', lvos)])
def test_a_root_without_a_listed_sequence_is_refused(tmp_path, dataset, build):
    build(tmp_path)
    listing = tmp_path / 'valid' / 'meta.json'
    told = json.loads(listing.read_text())
    told['videos']['x9'] = next(iter(told['videos'].values()))
    listing.write_text(json.dumps(told))
    with pytest.raises(ParameterError, match=r'JPEGImages/x9: not found, but listed in .*meta\.json; 1 of its 2'):
        read_dataset(dataset, tmp_path, ReadOptions())


def test_a_missing_image_whose_mask_is_required_is_named(tmp_path):
    youtube(tmp_path)
    (tmp_path / 'all_frames' / 'valid_all_frames' / 'JPEGImages' / 'v1' / '00011.jpg').unlink()
    with pytest.raises(ParameterError, match=r'JPEGImages/v1/00011\.jpg: no such image, but .*meta\.json requires'):
        read_dataset('youtube2018', tmp_path, ReadOptions())


@pytest.mark.parametrize('text', ['[]', '{"videos": ["v1"]}'])
def test_a_list_with_unexpected_json_is_refused(tmp_path, text):
    youtube(tmp_path)
    (tmp_path / 'valid' / 'meta.json').write_text(text)
    with pytest.raises(ParameterError, match=r'meta\.json: its videos are not a mapping'):
        read_dataset('youtube2018', tmp_path, ReadOptions())


@pytest.mark.parametrize('name', ['../480p/a', './a', '..', '.', '.a', '/{root}/trainval/JPEGImages/480p/a', 'a/'])
def test_a_listed_name_outside_the_data_set_is_refused(tmp_path, name):
    """Otherwise output folders with such names would be removed and written elsewhere."""
    part = davis(tmp_path, large=False)
    for kind in ('JPEGImages', 'Annotations'):
        (part / kind / '480p' / '.a').symlink_to('a')
    listing = part / 'ImageSets' / '2017' / 'val.txt'
    listing.write_text(name.format(root=tmp_path) + '\n')
    with pytest.raises(ParameterError, match=r'2017/val\.txt: .* is not a sequence name'):
        read_dataset('davis2017', tmp_path, ReadOptions())


def test_a_name_outside_the_data_set_is_refused_from_any_reader(tmp_path, monkeypatch):
    stray = Sequence('../a', frames=(), seeds={}, written=())
    monkeypatch.setitem(DATASETS, 'generic', replace(DATASETS['generic'], read=lambda *_: [stray]))
    with pytest.raises(ParameterError, match=r"'\.\./a' is not a sequence name"):
        read_dataset('generic', tmp_path, ReadOptions())


def test_a_list_that_is_not_text_is_refused(tmp_path):
    listing = davis(tmp_path, large=False) / 'ImageSets' / '2017' / 'val.txt'
    listing.write_bytes(b'\xff\xfea\n')
    with pytest.raises(ParameterError, match=r'val\.txt: not readable as text'):
        read_dataset('davis2017', tmp_path, ReadOptions())


# --- wrong roots


@pytest.mark.parametrize(
    ('dataset', 'build', 'looks'),
    [
        ('davis2017', youtube, 'YouTube-VOS'),
        ('youtube2018', davis, 'DAVIS 2017'),
        ('davis2016', lambda root: save_sequence(root), 'generic'),
        ('lvos', long_video, 'Long-time Video'),
        ('mose', davis, 'DAVIS 2017'),
        ('generic', youtube, 'YouTube-VOS'),
        ('longvideo1', lambda root: davis(root, binary=True), 'DAVIS'),
    ],
)
def test_a_root_of_another_data_set_is_recognised_and_refused(tmp_path, dataset, build, looks):
    build(tmp_path)
    with pytest.raises((ParameterError, SeedError)) as error:
        read_dataset(dataset, tmp_path, ReadOptions())
    assert str(tmp_path) in str(error.value)
    assert looks in str(error.value) or 'check the layout' in str(error.value)


@pytest.mark.parametrize('dataset', DATASETS)
def test_a_missing_root_is_refused(tmp_path, dataset):
    with pytest.raises(ParameterError, match='nowhere: no such folder'):
        read_dataset(dataset, tmp_path / 'nowhere', ReadOptions())


def test_a_seed_of_the_wrong_size_is_refused_before_tracking(tmp_path, weights):
    youtube(tmp_path)
    save_mask(tmp_path / 'valid' / 'Annotations' / 'v1' / f'{1 + LATE:05d}.png', np.full((70, 90), 2, np.uint8))
    with pytest.raises(FrameError, match=r'v1/00006\.png: the mask is 90×70 px, its frame 112×64'):
        run('youtube2018', tmp_path, weights, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
