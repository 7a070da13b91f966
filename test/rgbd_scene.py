# SPDX-License-Identifier: MIT
"""Rendered RGB-D scene with known poses: a ball that moves and a box, before a wall and a floor.

Camera frame as in REP 103: x right, y down, z forward [m].
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIZE = (480, 640)  # height, width, px
FOCAL = 525.0
CX, CY = 319.5, 239.5
WALL, FLOOR = 3.2, 0.9  # m
BALL, BOX = 1, 2  # labels
RADIUS = 0.16
BALL_START, BALL_VELOCITY = np.array([-0.35, 0.05, 2.0]), np.array([0.3, 0.0, 0.0])  # m, m/s
BOX_CENTRE, BOX_SIZE = np.array([0.45, 0.1, 2.15]), np.array([0.3, 0.36, 0.3])
NOISE = 0.004  # m, standard deviation of a depth
RATE = 30.0  # frames/s


@dataclass(frozen=True)
class View:
    """One image with its truth."""

    image: np.ndarray  # H×W uint8, grey: small messages keep the tests short
    depth: np.ndarray  # H×W uint16 [mm], as a sensor measures it
    labels: np.ndarray  # H×W uint8
    points: np.ndarray  # H×W×3 [m], without noise
    ball: np.ndarray  # centre [m]

    def distance(self, points: np.ndarray, label: int) -> np.ndarray:
        """Return the distance of N×3 points to the surface of an object [m]."""
        if label == BALL:
            return np.abs(np.linalg.norm(points - self.ball, axis=1) - RADIUS)
        outside = np.abs(points - BOX_CENTRE) - BOX_SIZE / 2
        inside = np.minimum(outside.max(axis=1), 0)
        return np.abs(np.linalg.norm(np.maximum(outside, 0), axis=1) + inside)


def view(index: int) -> View:
    """Render the frame of an index."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    rays = np.stack([(columns - CX) / FOCAL, (rows - CY) / FOCAL, np.ones(SIZE)], axis=-1)
    ball = BALL_START + BALL_VELOCITY * index / RATE
    with np.errstate(divide='ignore', invalid='ignore'):
        floor = np.where(rays[..., 1] > 0, FLOOR / rays[..., 1], np.inf)
        depths = np.stack([np.minimum(WALL, floor), _ball_depth(rays, ball), _box_depth(rays)])
    labels = depths.argmin(axis=0).astype(np.uint8)
    z = depths.min(axis=0)
    points = rays * z[..., None]
    return View(_paint(points, labels, ball), _measure(z, index), labels, points, ball)


def _ball_depth(rays: np.ndarray, centre: np.ndarray) -> np.ndarray:
    a, b = (rays**2).sum(axis=-1), rays @ centre
    root = b**2 - a * (centre @ centre - RADIUS**2)
    return np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


def _box_depth(rays: np.ndarray) -> np.ndarray:
    near = (BOX_CENTRE - BOX_SIZE / 2) / rays
    far = (BOX_CENTRE + BOX_SIZE / 2) / rays
    enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def _paint(points: np.ndarray, labels: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """Paint the surfaces: grey chequered wall, bright ball with stripes, dark box with squares."""
    chequers = (np.floor(points[..., 0] / 0.25) + np.floor(points[..., 1] / 0.25) + np.floor(points[..., 2] / 0.25)) % 2
    image = np.where(chequers > 0, 150.0, 122.0)
    image = np.where(labels == BALL, 205 + 30 * np.sin((points[..., 1] - ball[1]) * 60), image)
    squares = np.sin(points[..., 0] * 50) * np.sin(points[..., 1] * 50)
    image = np.where(labels == BOX, 60 + 30 * squares, image)
    light = 1 - 0.1 * (points[..., 2] - 2)
    return cv2.GaussianBlur(np.clip(image * light, 0, 255).astype(np.uint8), (3, 3), 0)


def _measure(z: np.ndarray, seed: int) -> np.ndarray:
    """Add what a sensor does: noise, mixed depths at edges, and holes."""
    random = np.random.default_rng(seed)
    measured = cv2.blur(z, (3, 3)) + random.normal(0, NOISE, z.shape)
    measured[random.random(z.shape) < 0.05] = 0
    return np.round(measured * 1000).astype(np.uint16)
