# SPDX-License-Identifier: MIT
"""Constant-velocity Kalman filter of an object's position. No ROS.

State: position and velocity of each axis. The velocity drifts as a Wiener process, that is, its
derivative is white noise (Bar-Shalom et al., Estimation with Applications to Tracking and
Navigation, 6.2.2). Noise is the same on all axes, so one 2×2 covariance serves the three of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INITIAL_SPEED = 2.0  # m/s; standard deviation of the velocity before the second measurement
MAX_GAP_S = 2.0  # without a measurement; the filter then begins anew
_GATE = 21.1  # squared Mahalanobis distance that 1 in 10 000 measurements exceeds, 3 degrees of freedom


@dataclass(frozen=True)
class Motion:
    """Position [m], velocity [m/s] and their covariance."""

    position: tuple[float, float, float]
    velocity: tuple[float, float, float]
    variances: tuple[float, float, float]  # of a position, of position and velocity, of a velocity; of each axis

    def covariance(self) -> np.ndarray:
        """Return the covariance of x, y, z, vx, vy, vz; 6×6."""
        position, mixed, velocity = self.variances
        return np.kron(np.array([[position, mixed], [mixed, velocity]]), np.eye(3))


class MotionFilter:
    """Estimates position and velocity from positions at increasing times.

    Arguments:
        time_s: time of the first position [s].
        position: the first position, x, y, z [m].
        noise: standard deviation of a measured position [m].
    """

    def __init__(self, time_s: float, position: tuple[float, float, float], noise: float) -> None:
        self._begin(time_s, np.asarray(position, float), noise)

    def update(
        self, time_s: float, position: tuple[float, float, float], *, noise: float, speed_change: float
    ) -> Motion:
        """Add a measured position and return the estimate.

        One measurement far from the prediction is ignored; after a second one in a row, or after
        `MAX_GAP_S` without any, the filter begins anew at the measurement. So it does if time has
        not increased.

        Args:
            time_s: time of the position [s].
            position: x, y, z [m].
            noise: standard deviation of the measurement [m].
            speed_change: typical change of the velocity in a second [m/s].
        """
        measured = np.asarray(position, float)
        if not 0 < time_s - self._time <= MAX_GAP_S:
            self._begin(time_s, measured, noise)
            return self._motion(self._state, self._covariance)
        state, covariance = self._predicted(time_s, speed_change)
        innovation, variance = measured - state[0], covariance[0, 0] + noise**2
        if innovation @ innovation / variance > _GATE:
            self._rejected += 1
            if self._rejected > 1:
                self._begin(time_s, measured, noise)
                return self._motion(self._state, self._covariance)
            return self._motion(state, covariance)
        gain = covariance[:, 0] / variance
        self._state = state + np.outer(gain, innovation)
        # Joseph's form stays positive definite.
        keep = np.eye(2) - np.outer(gain, [1.0, 0.0])
        self._covariance = keep @ covariance @ keep.T + noise**2 * np.outer(gain, gain)
        self._time = time_s
        self._rejected = 0
        return self._motion(self._state, self._covariance)

    def predict(self, time_s: float, *, speed_change: float) -> Motion | None:
        """Return the estimate at a time without a measurement; None if the last one is too old."""
        if not 0 <= time_s - self._time <= MAX_GAP_S:
            return None
        return self._motion(*self._predicted(time_s, speed_change))

    def _begin(self, time_s: float, position: np.ndarray, noise: float) -> None:
        self._time = time_s
        self._state = np.stack([position, np.zeros(3)])  # 2×3: position, velocity
        self._covariance = np.diag([noise**2, INITIAL_SPEED**2])
        self._rejected = 0

    def _predicted(self, time_s: float, speed_change: float) -> tuple[np.ndarray, np.ndarray]:
        dt = time_s - self._time
        transition = np.array([[1.0, dt], [0.0, 1.0]])
        drift = speed_change**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        return transition @ self._state, transition @ self._covariance @ transition.T + drift

    @staticmethod
    def _motion(state: np.ndarray, covariance: np.ndarray) -> Motion:
        (x, y, z), (vx, vy, vz) = state.tolist()
        return Motion((x, y, z), (vx, vy, vz), (covariance[0, 0], covariance[0, 1], covariance[1, 1]))
