# SPDX-License-Identifier: MIT
"""Inputs of every class, each damaged in twenty random places: no frame is lost in silence."""

import pytest
from needs import require

require('av', 'rosbags.rosbag2')

from inputs.damage import AFTER, BEFORE, CLASSES, COUNT, read, trials

PLACES = 20


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """Class → its trials, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = trials(name, tmp_path_factory.mktemp('input'), PLACES)
        return made[name]

    return of


@pytest.mark.parametrize('name', CLASSES)
def test_frames_read_and_frames_named_as_lost_are_all_frames(found, name):
    """Rarely more, if a header promises too many."""
    more = 0
    for trial in found(name):
        outcome = trial.outcome
        total = len(outcome.frames) + outcome.named
        if outcome.refused:
            assert not outcome.frames
        elif AFTER not in outcome.said and BEFORE not in outcome.said:  # a transport stream does not tell how many
            assert total >= COUNT, outcome.said
            more += total > COUNT
    assert more <= PLACES // 10


@pytest.mark.parametrize('name', [name for name, kind in CLASSES.items() if kind.ordered])
def test_no_frame_takes_the_place_of_another(found, name):
    """One altered frame can be decoded as a copy of another."""
    assert [trial.outcome.said for trial in found(name) if len(trial.misplaced) > 1] == []


@pytest.mark.parametrize('name', [name for name, kind in CLASSES.items() if kind.ordered and kind.timed])
def test_every_frame_has_its_own_time_unless_a_sentence_says_otherwise(found, name):
    assert [trial.outcome.said for trial in found(name) if trial.late] == []


@pytest.mark.parametrize('name', [name for name, kind in CLASSES.items() if kind.checked])
def test_altered_pixels_are_noticed_where_the_format_has_checks(found, name):
    assert [trial.garbled for trial in found(name)] == [[]] * PLACES


@pytest.mark.parametrize('name', CLASSES)
def test_some_of_the_damaged_inputs_are_read_in_part(found, name):
    """Otherwise the tests above say little."""
    assert any(trial.outcome.named and trial.outcome.frames for trial in found(name))


@pytest.mark.parametrize('name', CLASSES)
def test_whole_inputs_are_read_in_full_and_nothing_is_said(name, tmp_path):
    outcome = read(CLASSES[name].make(tmp_path)[0])
    assert (sorted(outcome.frames), outcome.named, outcome.said.strip('; ')) == (list(range(COUNT)), 0, '')
