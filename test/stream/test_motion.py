# SPDX-License-Identifier: MIT
"""The constant-velocity filter on synthetic motion."""

from __future__ import annotations

import numpy as np
import pytest

from xmem_ros.stream.motion import MAX_GAP_S, MotionFilter

RATE = 30.0
NOISE, SPEED_CHANGE = 0.02, 0.5


def walk(random: np.random.Generator, steps: int, dt: float = 1 / RATE) -> np.ndarray:
    """Return positions and velocities, steps×6, of the motion that the filter assumes."""
    state, states = np.concatenate([random.normal(0, 1, 3), random.normal(0, 1, 3)]), []
    drift = SPEED_CHANGE**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    for _ in range(steps):
        states.append(state)
        moved = state[:3] + dt * state[3:]
        disturbance = random.multivariate_normal((0, 0), drift, 3)
        state = np.concatenate([moved + disturbance[:, 0], state[3:] + disturbance[:, 1]])
    return np.array(states)


def run(measured: np.ndarray, dt: float = 1 / RATE) -> list:
    found = MotionFilter(0.0, measured[0], NOISE)
    return [
        found.update(index * dt, position, noise=NOISE, speed_change=SPEED_CHANGE)
        for index, position in enumerate(measured[1:], 1)
    ]


def test_the_error_is_as_large_as_the_covariance_says():
    """NEES: the normalised squared error has the mean 6, the number of dimensions."""
    random, errors = np.random.default_rng(0), []
    for _ in range(200):
        truth = walk(random, 40)
        motion = run(truth[:, :3] + random.normal(0, NOISE, (40, 3)))[-1]
        error = np.concatenate([motion.position, motion.velocity]) - truth[-1]
        errors.append(error @ np.linalg.solve(motion.covariance(), error))
    # The mean of 200 such errors has a standard deviation of sqrt(12 / 200) = 0.24.
    assert 6 - 3 * 0.25 < np.mean(errors) < 6 + 3 * 0.25


def test_a_constant_velocity_is_found():
    times = np.arange(60) / RATE
    truth = np.array([1.0, -2.0, 3.0]) + times[:, None] * np.array([0.8, -0.3, 0.1])
    motion = run(truth + np.random.default_rng(1).normal(0, NOISE, truth.shape))[-1]
    deviation = motion.variances[2] ** 0.5
    assert deviation < 0.25
    assert np.abs(np.array(motion.velocity) - (0.8, -0.3, 0.1)).max() < 3 * deviation


def test_a_prediction_moves_on_and_becomes_less_certain():
    found = MotionFilter(0.0, (0.0, 0.0, 2.0), NOISE)
    for index in range(1, 30):
        last = found.update(index / RATE, (index / RATE, 0.0, 2.0), noise=NOISE, speed_change=SPEED_CHANGE)
    ahead = found.predict(29 / RATE + 1.0, speed_change=SPEED_CHANGE)
    assert ahead.position == pytest.approx((29 / RATE + 1.0, 0.0, 2.0), abs=0.1)
    assert ahead.variances[0] > last.variances[0]
    assert found.predict(29 / RATE + MAX_GAP_S + 0.1, speed_change=SPEED_CHANGE) is None


def test_one_wild_measurement_is_ignored_and_two_are_believed():
    found = MotionFilter(0.0, (0.0, 0.0, 2.0), NOISE)
    for index in range(1, 30):
        found.update(index / RATE, (0.0, 0.0, 2.0), noise=NOISE, speed_change=SPEED_CHANGE)
    once = found.update(30 / RATE, (5.0, 0.0, 2.0), noise=NOISE, speed_change=SPEED_CHANGE)
    assert once.position == pytest.approx((0.0, 0.0, 2.0), abs=0.05)
    twice = found.update(31 / RATE, (5.0, 0.0, 2.0), noise=NOISE, speed_change=SPEED_CHANGE)
    assert twice.position == (5.0, 0.0, 2.0)
    assert twice.velocity == (0.0, 0.0, 0.0)


@pytest.mark.parametrize('time_s', [-1.0, 0.0, MAX_GAP_S + 0.1])
def test_the_filter_begins_anew_after_a_gap_or_a_jump_back(time_s):
    found = MotionFilter(0.0, (0.0, 0.0, 2.0), NOISE)
    motion = found.update(time_s, (1.0, 1.0, 1.0), noise=NOISE, speed_change=SPEED_CHANGE)
    assert motion.position == (1.0, 1.0, 1.0)
    assert motion.velocity == (0.0, 0.0, 0.0)


def test_the_covariance_is_positive_definite_and_symmetric():
    covariance = run(walk(np.random.default_rng(2), 500)[:, :3])[-1].covariance()
    assert covariance.shape == (6, 6)
    assert (covariance == covariance.T).all()
    assert np.linalg.eigvalsh(covariance).min() > 0
