# SPDX-License-Identifier: MIT
"""Wrong arguments to the library: errors that say what is allowed; the state is unchanged."""

import dataclasses

import numpy as np
import pytest
import torch

from xmem_ros.checks import checked_ids
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import (
    DeviceError,
    FrameError,
    MemoryFileError,
    ParameterError,
    SeedError,
    UnknownObjectError,
    WeightsError,
)
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.tracker import SeedMask, Tracker, TrackerConfig

FRAME, TRUTH = RenderedScene((96, 160), 2, 2, seed=0)[0]
MASK = TRUTH == 1
NAN = float('nan')


@pytest.fixture(scope='module')
def tracker() -> Tracker:
    tracker = Tracker.from_weights('compact', config=TrackerConfig(size=96, max_objects=4), device='cpu')
    tracker.seed(FRAME, {'it': MASK})
    return tracker


@pytest.mark.parametrize('kind', [TrackerConfig, MemoryConfig])
@pytest.mark.parametrize('given', ['7', None, -7, NAN, [1], b'1', object(), torch.zeros(2), np.zeros(2)])
def test_a_setting_of_the_wrong_type_is_refused(kind: type, given: object) -> None:
    for item in dataclasses.fields(kind):
        with pytest.raises(ParameterError, match=rf'{item.name} is .*; it must be '):
            kind(**{item.name: given})


@pytest.mark.parametrize(
    ('settings', 'allowed'),
    [
        ({'max_objects': '4'}, r"max_objects is '4'; it must be a whole number, 1…254"),
        ({'max_objects': 255}, 'max_objects is 255; it must be 1…254'),
        ({'max_objects': True}, 'max_objects is True; it must be a whole number'),
        ({'memory_every': 2.5}, 'memory_every is 2.5; it must be a whole number, at least 1'),
        ({'min_score': 1.5}, 'min_score is 1.5; it must be 0…1'),
        ({'min_score': NAN}, 'min_score is nan; it must be a number, 0…1'),
        ({'lost_after': -1}, 'lost_after is -1; it must be at least 0'),
        ({'report_unsure': 1}, 'report_unsure is 1; it must be True or False'),
        ({'size': '480'}, "size is '480'; it must be a whole number: at least 16 px"),
        ({'precision': 'half'}, "precision is 'half'; it must be auto, float32, float16 or bfloat16"),
        ({'memory': {'top_k': 3}}, 'memory is .* must be a MemoryConfig'),
    ],
)
def test_a_setting_is_refused_with_what_is_allowed(settings: dict, allowed: str) -> None:
    with pytest.raises(ParameterError, match=allowed):
        TrackerConfig(**settings)


def test_numpy_numbers_are_accepted_as_settings_ids_and_sizes(tracker: Tracker) -> None:
    config = TrackerConfig(size=np.int64(96), min_score=np.float32(0.5), lost_after=3)
    assert Tracker.memory_bytes_for(np.array([96, 160]), np.int32(2), config=config) > 0
    (new,) = tracker.seed(FRAME, {'other': TRUTH == 2})
    assert tracker.remove(np.array([new])) == [new]
    (new,) = tracker.seed(FRAME, {'other': TRUTH == 2})
    assert tracker.remove(new) == [new]


@pytest.mark.parametrize('ids', ['1', ['1'], None, [None], 1.0, [NAN], -1, [0], True, [[1]], 2**32, b'1', object()])
def test_an_invalid_id_removes_nothing(tracker: Tracker, ids: object) -> None:
    for work in (tracker.remove, checked_ids, lambda ids: tracker.likeness(FRAME, [MASK], ids)):
        with pytest.raises(UnknownObjectError, match=r'ids are .*: give one id or several; an id is a whole number'):
            work(ids)
    assert [item.id for item in tracker.objects] == [1]


@pytest.mark.parametrize(
    ('masks', 'says'),
    [
        (None, r'masks are None; give \{name: mask\}'),
        ('mask.png', r"masks are 'mask.png'; give \{name: mask\}"),
        (7, r'masks are 7; give \{name: mask\}'),
        (MASK, r'masks are an array of shape \(96, 160\) and type bool; give \{name: mask\}'),
        (SeedMask(MASK), r'a list of SeedMask'),
        ({'it': None}, r"seed 1 \('it'\): its mask is None; give H×W bool"),
        ({'it': 'mask.png'}, "its mask is 'mask.png'"),
        ({'it': [[1], [1, 2]]}, 'its mask is .*; give H×W bool'),
        ({'it': MASK[None]}, r'its mask is \(1, 96, 160\), but the frame is \(96, 160\)'),
        ({'it': np.where(MASK, 1.0, NAN)}, 'its mask holds NaN; give 0'),
        ({'it': MASK.astype(object)}, r'its mask is an array of shape \(96, 160\) and type object'),
        ({'it': MASK.astype(complex)}, 'type complex128'),
        ({True: MASK}, 'under True: use a name'),
        ({-1: MASK}, 'under -1: use a name'),
        ({NAN: MASK}, 'under nan: use a name'),
        ([SeedMask(MASK, name=None)], 'seed 1: its name is None; give a text'),
        ([SeedMask(MASK, id='1')], "seed 1: its id is '1'; give 0 for a new object"),
        ([SeedMask(MASK, id=-1)], 'seed 1: its id is -1'),
        ([SeedMask(MASK, id=1.5)], 'seed 1: its id is 1.5'),
        ([MASK], r'item 1 of masks is an array of shape \(96, 160\) .*; give .* a list of SeedMask'),
    ],
)
def test_an_invalid_seed_is_refused_and_changes_nothing(tracker: Tracker, masks: object, says: str) -> None:
    for seed in (tracker.seed, tracker.step):
        with pytest.raises(SeedError, match=says):
            seed(FRAME, masks)
    assert [item.id for item in tracker.objects] == [1]


@pytest.mark.parametrize('labels', ['x', 3, [[1], [1, 2]], np.zeros((96, 160)), np.zeros((9, 9), np.uint8)])
def test_invalid_labels_are_refused(tracker: Tracker, labels: object) -> None:
    with pytest.raises(SeedError, match=r'^labels are .*(that step returned|of the same frame)'):
        tracker.seed(FRAME, {'new': MASK}, labels=labels)
    assert [item.id for item in tracker.objects] == [1]


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'time': '1.0'}, "time is '1.0'; give the time of the frame in s"),
        ({'time': NAN}, 'time is nan'),
        ({'time': float('inf')}, 'time is inf'),
        ({'output_size': 96}, 'output_size is 96; give height and width'),
        ({'output_size': (96, 0)}, r'output_size is \(96, 0\)'),
        ({'output_size': (96.0, 160.0)}, 'give height and width, whole numbers of px'),
        ({'output_size': ('96', '160')}, 'whole numbers of px'),
        ({'output_size': (10**30, 1)}, 'whole numbers of px'),
    ],
)
def test_an_invalid_time_or_size_is_refused_and_the_frame_is_not_counted(
    tracker: Tracker, options: dict, says: str
) -> None:
    before = tracker.export_state().clock
    with pytest.raises(FrameError, match=says):
        tracker.step(FRAME, **options)
    assert tracker.export_state().clock == before


@pytest.mark.parametrize('given', [3, None, [], object(), b'x', NAN])
def test_an_invalid_path_is_refused(tracker: Tracker, given: object) -> None:
    for work in (tracker.save, tracker.load):
        with pytest.raises(MemoryFileError, match=r'the memory file is .*; give a str or a pathlib.Path'):
            work(given)
    with pytest.raises(WeightsError, match='weights is .*; give a str'):
        Tracker.from_weights(given)


def test_an_invalid_configuration_or_device_is_refused() -> None:
    for config in ({}, 'auto', 3, TrackerConfig):
        with pytest.raises(ParameterError, match=r'config is .*; it must be a TrackerConfig, or None'):
            Tracker.from_weights('compact', config=config)
    for device in (None, 1.5, 10**30, [], 'gpu'):
        with pytest.raises(DeviceError, match='use auto, cpu, cuda'):
            Tracker.from_weights('compact', device=device)
    for size in ('480', (480,), None, (480, -1)):
        with pytest.raises(FrameError, match='size is .*; give height and width, whole numbers of px'):
            Tracker.memory_bytes_for(size, 1)
