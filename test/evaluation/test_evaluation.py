# SPDX-License-Identifier: MIT
"""Evaluation of a generic data set: reading, faults, tracking and scores."""

import json
from dataclasses import replace

import numpy as np
import pytest
from needs import require
from PIL import Image
from scene_files import BUNDLED, FOOTAGE, SIZE, save_frame, save_mask, save_sequence, save_untrained_weights

from xmem_ros.errors import FrameError, ParameterError, SeedError, WeightsError, XMemError
from xmem_ros.evaluation.datasets.options import ReadOptions
from xmem_ros.evaluation.datasets.plain import read_generic
from xmem_ros.evaluation.runner import evaluate

require('vos_benchmark')


def square(left, top=10, side=10, value=1):
    mask = np.zeros((100, 100), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


# --- the generic data set


def generic(root):
    return read_generic(root, ReadOptions())


def write_truth(root, name, masks):
    for index, mask in enumerate(masks):
        save_frame(root / 'JPEGImages' / name / f'{index:05d}.jpg', np.zeros((*mask.shape, 3), np.uint8))
        save_mask(root / 'Annotations' / name / f'{index:05d}.png', mask)


def test_the_earliest_mask_is_the_seed_and_earlier_frames_are_skipped(tmp_path):
    save_sequence(tmp_path, frames=6)
    for stem in ('00000', '00003'):
        (tmp_path / 'Annotations' / 'toys' / f'{stem}.png').unlink()
    (sequence,) = generic(tmp_path)
    assert [path.stem for path in sequence.frames] == ['00001', '00002', '00003', '00004', '00005']
    assert list(sequence.seeds) == ['00001']
    assert list(sequence.truth) == ['00001', '00002', '00004', '00005']
    assert sequence.scored == ('00002', '00004')
    assert not sequence.binary


def test_a_mask_of_0_and_255_shows_one_object(tmp_path):
    save_sequence(tmp_path, binary=True)
    (sequence,) = generic(tmp_path)
    assert sequence.binary
    assert set(np.unique(sequence.values(sequence.truth['00002']))) == {0, 255}
    assert list(sequence.seed_objects('00000', SIZE)) == [255]
    assert list(sequence.seed_objects('00000', SIZE, ignore_void=True)) == [255]


def test_255_beside_other_values_is_void_only_with_ignore_void(tmp_path):
    write_truth(tmp_path, 'a', [square(10, value=7) | square(60, value=255)] * 3)
    (sequence,) = generic(tmp_path)
    assert list(sequence.seed_objects('00000', (100, 100))) == [7, 255]
    objects = sequence.seed_objects('00000', (100, 100), ignore_void=True)
    assert list(objects) == [7]
    np.testing.assert_array_equal(objects[7], square(10) > 0)


def test_palette_and_one_bit_masks_are_read_by_their_values(tmp_path):
    write_truth(tmp_path, 'a', [square(10)] * 3)
    image = Image.fromarray(square(10, value=5), mode='P')
    image.putpalette([0, 0, 0] * 5 + [9, 9, 9])
    image.save(tmp_path / 'Annotations' / 'a' / '00000.png')
    (sequence,) = generic(tmp_path)
    assert list(sequence.seed_objects('00000', (100, 100))) == [5]
    Image.fromarray(square(10) > 0).save(tmp_path / 'Annotations' / 'a' / '00000.png')
    (sequence,) = generic(tmp_path)
    assert sequence.binary


def test_with_late_objects_a_sequence_begins_at_the_first_mask_with_an_object(tmp_path, weights):
    save_sequence(tmp_path)
    empty_seed(tmp_path)
    result = run(tmp_path, weights, tmp_path / 'out', size='auto', late_objects=True, scales=(48, 64))
    assert [path.stem for path in sorted((tmp_path / 'out' / 'toys').iterdir())] == ['00001', '00002', '00003', '00004']
    assert result['sequences']['toys']['frames'] == 2
    assert set(result['sequences']['toys']['objects']) == {'1', '2'}


def test_ignored_void_does_not_begin_a_late_object(tmp_path):
    void, both = square(60, value=255), square(10) | square(60, value=255)
    write_truth(tmp_path, 'mixed', [void, both, both, both])
    write_truth(tmp_path, 'only', [void] * 4)
    found = {}
    for ignore_void in (False, True):
        options = ReadOptions(late_objects=True, ignore_void=ignore_void)
        found[ignore_void] = {sequence.name: sequence for sequence in read_generic(tmp_path, options)}
    seeds = {stem: seed.objects for stem, seed in found[True]['mixed'].seeds.items()}
    assert seeds == {'00001': {1}}
    assert found[True]['mixed'].frames[0].stem == '00001'
    assert not found[True]['mixed'].binary
    assert found[True]['only'] == found[False]['only']  # here 255 is the object
    assert found[True]['only'].binary
    assert list(found[True]['only'].check_seeds(ignore_void=True)) == [255]


def test_a_first_mask_of_only_void_is_refused(tmp_path):
    write_truth(tmp_path, 'a', [square(10, value=255)] * 3)
    (sequence,) = generic(tmp_path)
    seeds = {stem: replace(seed, objects=frozenset({255})) for stem, seed in sequence.seeds.items()}
    with pytest.raises(SeedError, match=r'a/00000\.png: the first mask of sequence a'):
        replace(sequence, seeds=seeds, binary=False).check_seeds(ignore_void=True)


def test_a_sequence_of_only_empty_masks_is_refused(tmp_path):
    write_truth(tmp_path, 'a', [square(10, value=0)] * 3)
    with pytest.raises(SeedError, match='Annotations/a: no mask of this sequence shows an object'):
        read_generic(tmp_path, ReadOptions(late_objects=True))


def drop_masks(root):
    for mask in (root / 'Annotations' / 'toys').iterdir():
        mask.unlink()


def cut_frame(root):
    path = root / 'JPEGImages' / 'toys' / '00002.jpg'
    path.write_bytes(path.read_bytes()[:-300])


def garble_frame(root):
    (root / 'JPEGImages' / 'toys' / '00000.jpg').write_bytes(b'not a JPEG')


def garble_mask(root):
    (root / 'Annotations' / 'toys' / '00000.png').write_bytes(b'not a PNG')


def enlarge_mask(root):
    save_mask(root / 'Annotations' / 'toys' / '00000.png', np.ones((70, 96), np.uint8))


def enlarge_truth(root):
    save_mask(root / 'Annotations' / 'toys' / '00002.png', np.ones((70, 96), np.uint8))


def empty_seed(root):
    save_mask(root / 'Annotations' / 'toys' / '00000.png', np.zeros(SIZE, np.uint8))


def coloured_mask(root):
    Image.new('RGB', SIZE[::-1], (200, 30, 30)).save(root / 'Annotations' / 'toys' / '00000.png')


def stray_mask(root):
    save_mask(root / 'Annotations' / 'toys' / '99999.png', np.ones(SIZE, np.uint8))


def two_frames_of_one_name(root):
    Image.new('RGB', SIZE[::-1]).save(root / 'JPEGImages' / 'toys' / '00001.png')


def no_frames(root):
    for frame in (root / 'JPEGImages' / 'toys').iterdir():
        frame.unlink()


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_untrained_weights(tmp_path_factory.mktemp('weights') / 'untrained.safetensors')


def run(root, weights, output, size=64, **options):
    return evaluate(
        'generic', root, weights=str(weights), size=size, device='cpu', output=output, progress=False, **options
    )


@pytest.mark.parametrize(
    ('spoil', 'kind', 'named'),
    [
        (drop_masks, SeedError, 'Annotations/toys: no masks'),
        (cut_frame, FrameError, 'sequence toys: .*JPEGImages/toys/00002.jpg: not a readable image'),
        (garble_frame, FrameError, 'JPEGImages/toys/00000.jpg: not a readable image'),
        (garble_mask, SeedError, 'Annotations/toys/00000.png: not a readable mask'),
        (enlarge_mask, FrameError, 'Annotations/toys/00000.png: the mask is 96×70 px, its frame 96×64'),
        (enlarge_truth, FrameError, '00002.png: the mask is 96×64 px, its ground truth .*00002.png 96×70'),
        (empty_seed, SeedError, 'Annotations/toys/00000.png: .*shows no object'),
        (coloured_mask, SeedError, 'Annotations/toys/00000.png: a colour image; a mask is'),
        (stray_mask, SeedError, 'Annotations/toys/99999.png: no image'),
        (two_frames_of_one_name, ParameterError, 'JPEGImages/toys/00001.png: 00001.jpg differs only in the suffix'),
        (no_frames, ParameterError, 'JPEGImages/toys: no images'),
    ],
)
def test_a_fault_in_a_data_set_is_reported_with_its_file(tmp_path, weights, spoil, kind, named):
    save_sequence(tmp_path)
    spoil(tmp_path)
    with pytest.raises(kind, match=named):
        run(tmp_path, weights, tmp_path / 'out')


def test_another_value_in_a_binary_sequence_is_refused(tmp_path, weights):
    save_sequence(tmp_path, binary=True)
    save_mask(tmp_path / 'Annotations' / 'toys' / '00002.png', np.full(SIZE, 3, np.uint8))
    with pytest.raises(SeedError, match=r'00002\.png: value 3'):
        run(tmp_path, weights, tmp_path / 'out')


def test_a_wrong_root_is_refused(tmp_path, weights):
    with pytest.raises(ParameterError, match='JPEGImages: not found; the root of a generic data set'):
        run(tmp_path, weights, tmp_path / 'out')
    (tmp_path / 'JPEGImages').mkdir()
    (tmp_path / 'Annotations').mkdir()
    with pytest.raises(ParameterError, match='no sequence'):
        run(tmp_path, weights, tmp_path / 'out')


@pytest.mark.parametrize(
    ('options', 'kind', 'text'),
    [
        ({'weights': 'nonsense'}, WeightsError, 'nonsense'),
        ({'size': 3}, ParameterError, 'size is 3'),
        ({'dataset': 'davis-1999'}, ParameterError, 'davis-1999.*generic'),
    ],
)
def test_unusable_settings_are_refused(tmp_path, options, kind, text):
    save_sequence(tmp_path)
    with pytest.raises(kind, match=text):
        evaluate(**{'dataset': 'generic', 'root': tmp_path, 'output': tmp_path / 'out', **options})
    assert not (tmp_path / 'out').exists()


# --- the run


def test_masks_have_the_size_of_the_frames_and_the_values_of_the_data_set(tmp_path, weights):
    scene = save_sequence(tmp_path)
    result = run(tmp_path, weights, tmp_path / 'out')
    files = sorted((tmp_path / 'out' / 'toys').iterdir())
    assert [file.name for file in files] == [f'{index:05d}.png' for index in range(5)]
    for file in files:
        with Image.open(file) as image:
            assert image.mode == 'P'
            assert image.size == SIZE[::-1]
            assert set(np.unique(np.array(image))) <= {0, 1, 2}
    with Image.open(files[0]) as image:
        np.testing.assert_array_equal(np.array(image), scene[0][1])
    assert result['sequences']['toys']['frames'] == 3
    assert set(result['sequences']['toys']['objects']) == {'1', '2'}
    for key in ('J', 'F', 'J&F'):
        assert result[key] == pytest.approx(result['sequences']['toys'][key])
    assert 0 <= result['J&F'] <= 100
    json.dumps(result)


def test_the_command_of_vos_benchmark_gives_the_same_scores(tmp_path, weights):
    from vos_benchmark.benchmark import benchmark

    save_sequence(tmp_path, 'several')
    save_sequence(tmp_path, 'one', binary=True)
    result = run(tmp_path, weights, tmp_path / 'out')
    jf, j, f, _ = benchmark([str(tmp_path / 'Annotations')], [str(tmp_path / 'out')], num_processes=1, verbose=False)
    assert [result['J&F'], result['J'], result['F']] == pytest.approx([jf[0], j[0], f[0]])


def test_finished_sequences_are_kept_and_unfinished_ones_are_tracked_again(tmp_path, weights):
    save_sequence(tmp_path, 'kept')
    save_sequence(tmp_path, 'broken')
    first = run(tmp_path, weights, tmp_path / 'out')
    mark = np.full(SIZE, 1, np.uint8)
    save_mask(tmp_path / 'out' / 'kept' / '00001.png', mark)
    (tmp_path / 'out' / 'broken' / '00003.png').unlink()
    save_mask(tmp_path / 'out' / 'broken' / '00001.png', mark)
    second = run(tmp_path, weights, tmp_path / 'out')
    with Image.open(tmp_path / 'out' / 'kept' / '00001.png') as image:
        np.testing.assert_array_equal(np.array(image), mark)
    scores = [[result['sequences'][name]['J&F'] for result in (first, second)] for name in ('broken', 'kept')]
    assert scores[0][0] == scores[0][1]
    assert scores[1][0] != scores[1][1]
    assert second['sequences']['kept']['fps'] == first['sequences']['kept']['fps']


def test_an_output_folder_with_other_settings_or_files_is_refused(tmp_path, weights):
    save_sequence(tmp_path)
    run(tmp_path, weights, tmp_path / 'out')
    with pytest.raises(ParameterError, match='different: size'):
        run(tmp_path, weights, tmp_path / 'out', size=48)
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'mine.png').write_bytes(b'')
    with pytest.raises(ParameterError, match='not empty'):
        run(tmp_path, weights, tmp_path / 'photos')
    assert [file.name for file in (tmp_path / 'photos').iterdir()] == ['mine.png']


def test_masks_are_not_written_through_a_link_in_the_output_folder(tmp_path, weights):
    save_sequence(tmp_path)
    run(tmp_path, weights, tmp_path / 'out')
    theirs = tmp_path / 'theirs'
    (tmp_path / 'out' / 'toys').rename(theirs)
    (theirs / '00003.png').unlink()
    (theirs / '00002.png').write_text('mine')
    (tmp_path / 'out' / 'toys').symlink_to(theirs)
    with pytest.raises(ParameterError, match='link'):
        run(tmp_path, weights, tmp_path / 'out')
    assert (theirs / '00002.png').read_text() == 'mine'
    assert not (theirs / '00003.png').exists()


def test_a_failed_sequence_leaves_no_finished_folder(tmp_path, weights):
    save_sequence(tmp_path)
    cut_frame(tmp_path)
    with pytest.raises(XMemError):
        run(tmp_path, weights, tmp_path / 'out')
    assert not (tmp_path / 'out' / 'toys').exists()


@pytest.mark.skipif(not BUNDLED.is_file(), reason='the compact weights are not bundled yet')
def test_the_bundled_weights_follow_the_rendered_scene(tmp_path):
    save_sequence(tmp_path, frames=20, objects=3, size=(160, 288))
    result = evaluate('generic', tmp_path, size=160, device='cpu', output=tmp_path / 'out', progress=False)
    assert result['J&F'] > 60


@pytest.mark.skipif(not BUNDLED.is_file(), reason='the compact weights are not bundled yet')
@pytest.mark.skipif(not (FOOTAGE / 'davis-val').is_dir(), reason='needs ../shared/data/davis-val, which is not here')
def test_the_bundled_weights_beat_the_repeated_first_mask_on_real_footage(tmp_path):
    for kind in ('JPEGImages', 'Annotations'):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / 'blackswan').symlink_to(FOOTAGE / 'davis-val' / kind / 'blackswan')
    result = evaluate('generic', tmp_path, size=144, device='cpu', output=tmp_path / 'out', progress=False)
    assert result['J&F'] > 44.0 + 20  # the repeated mask has 44.0 (benchmarks/baselines.py)
