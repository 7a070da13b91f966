# SPDX-License-Identifier: MIT
"""Rendered clip with exact masks: objects on a table, filmed by a moving camera.

It is generated from a seed, so it needs no files, and frames can be read in any order.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from xmem_ros.demo import sprites
from xmem_ros.errors import ParameterError

RATE = 30.0  # frames/s
PERIOD = 150  # frames of one cycle of the motion

# Paths relative to the start: frame, x and y (of the frame's width and height), scale, degrees.
_CROSSER = ((0, 0, 0, 1.0, 0), (50, 0.30, -0.02, 1.1, 60), (78, 0.52, -0.08, 0.9, 130), (112, 0.30, -0.16, 0.8, 60))
_WANDERER = ((0, 0, 0, 1.0, 0), (38, 0.05, 0.04, 1.15, 14), (75, -0.03, 0.02, 1.0, -10), (112, -0.06, -0.05, 0.85, -18))
# The leaver's x of 1 is just outside the frame.
_LEAVER = (
    (0, 0, 0, 1.0, 0),
    (36, -0.22, -0.08, 1.1, -20),
    (68, 1.0, -0.06, 1.0, 25),
    (92, 1.1, -0.14, 0.9, 30),
    (122, 0.15, -0.04, 1.1, 12),
)


class RenderedScene:
    """Sequence of frames and label images.

    Objects start apart and in full view. One crosses in front of the others. One leaves the frame
    and returns; it is absent from about frame 65 to 105 of every 150. Others stay near their start.
    All rotate and change in size and brightness.

    Arguments:
        size: height and width, px; at least 64 each.
        frames: length; the motion repeats after 150 frames.
        objects: 1 to 6; object k (from 0) has the label k + 1.
        seed: random seed of textures, sizes and paths.

    Raises:
        ParameterError: an argument is out of range.
    """

    def __init__(self, size: tuple[int, int] = (240, 432), frames: int = 150, objects: int = 3, seed: int = 0) -> None:
        if not 1 <= objects <= len(sprites.NAMES):
            raise ParameterError(f'objects is {objects}; it must be 1 to {len(sprites.NAMES)}')
        if min(size) < 64:
            raise ParameterError(f'size is {size[0]}×{size[1]}; it must be at least 64×64 px')
        if frames < 1:
            raise ParameterError(f'frames is {frames}; it must be at least 1')
        self.size = (int(size[0]), int(size[1]))
        self.frames = int(frames)
        self.rate = RATE
        random = np.random.default_rng(seed)
        kinds = [*range(3), *(3 + random.permutation(len(sprites.NAMES) - 3))][:objects]
        self.names = [sprites.NAMES[kind] for kind in kinds]
        height, width = self.size
        side = round(min(0.42 * height, 0.8 * width / objects))
        self._sprites = [sprites.render(name, side, random) for name in self.names]
        self._paths = [_path(k, objects, side / width, random) for k in range(objects)]
        # From back to front: wanderers, crosser, leaver.
        self._order = sorted(
            range(objects), key=lambda k: {'wanderer': 0, 'crosser': 1, 'leaver': 2}[_role(k, objects)]
        )
        self._room = sprites.room(height, width, random)
        self._shadows = [cv2.GaussianBlur(sprite[..., 3], (0, 0), side / 14) for sprite in self._sprites]
        self._noise = random.normal(0, 2.5, (height + 64, width + 64, 3)).astype(np.float32)
        self._phase = random.uniform(0, 2 * np.pi, 4)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        self._x, self._y = x / width - 0.5, y / height - 0.5

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[index] for index in range(self.frames))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Render a frame H×W×3 uint8 RGB and labels H×W uint8 (0 background, k + 1 object k)."""
        index = range(self.frames)[index]
        height, width = self.size
        camera = self._camera(index)
        frame = cv2.warpAffine(self._room, camera, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        frame = frame.astype(np.float32)
        labels = np.zeros((height, width), np.uint8)
        for k in self._order:
            self._draw(frame, labels, k, index)
        frame *= self._light(index)[..., None]
        softness = 0.35 + 0.35 * np.sin(2 * np.pi * index / 47 + self._phase[3])
        if softness > 0.3:
            frame = cv2.GaussianBlur(frame, (0, 0), softness)
        top, left = (index * 37) % 64, (index * 23) % 64
        noise = self._noise[top : top + height, left : left + width]
        return np.clip(frame + noise, 0, 255).astype(np.uint8), labels

    def _camera(self, index: int) -> np.ndarray:
        """Return the 2×3 transform of frame px to room px, of a handheld camera."""
        height, width = self.size
        t = 2 * np.pi * index / PERIOD
        angle = np.deg2rad(1.5) * np.sin(t + self._phase[0])
        zoom = 1 + 0.04 * np.sin(2 * t + self._phase[1])
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        room_height, room_width = self._room.shape[:2]
        x = room_width / 2 + 0.10 * width * np.sin(t) + 0.008 * width * np.sin(7 * t + self._phase[2])
        y = room_height / 2 + 0.05 * height * np.sin(2 * t) + 0.008 * height * np.sin(9 * t + self._phase[3])
        return np.array(
            [[cos, -sin, x - cos * width / 2 + sin * height / 2], [sin, cos, y - sin * width / 2 - cos * height / 2]]
        )

    def _light(self, index: int) -> np.ndarray:
        """Return the gain H×W of the changing light."""
        t = 2 * np.pi * index / PERIOD
        gain = 0.95 + 0.12 * np.sin(3 * t + self._phase[0])
        return (gain + 0.3 * np.cos(t + self._phase[1]) * self._x + 0.15 * np.sin(t + self._phase[2]) * self._y).astype(
            np.float32
        )

    def _draw(self, frame: np.ndarray, labels: np.ndarray, k: int, index: int) -> None:
        """Draw object k and its shadow onto a frame (H×W×3 float32) and labels, in place."""
        height, width = self.size
        sprite = self._sprites[k]
        x, y, scale, angle = self._paths[k][index % PERIOD]
        side = sprite.shape[0]
        reach = int(scale * side * 0.75) + 2
        centre = (x * width, y * height)
        left, top = max(0, int(centre[0]) - reach), max(0, int(centre[1]) - reach)
        right, bottom = min(width, int(centre[0]) + reach), min(height, int(centre[1]) + reach)
        if left >= right or top >= bottom:
            return
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale)
        turn[:, 2] += (centre[0] - side / 2 - left, centre[1] - side / 2 - top)
        extent = (right - left, bottom - top)
        fall = turn.copy()
        fall[:, 2] += (0.04 * side, 0.07 * side)
        part = frame[top:bottom, left:right]
        part *= 1 - cv2.warpAffine(self._shadows[k], fall, extent)[..., None] * (0.45 / 255)
        drawn = cv2.warpAffine(sprite, turn, extent, flags=cv2.INTER_LINEAR)
        # Premultiplied colours blend without a halo at the edges.
        part *= 1 - drawn[..., 3:] * (1 / 255)
        part += drawn[..., :3]
        labels[top:bottom, left:right][drawn[..., 3] >= 127.5] = k + 1


def _role(k: int, objects: int) -> str:
    """Return the kind of motion of object k."""
    if k == objects - 1:
        return 'leaver'
    return 'crosser' if k == 0 else 'wanderer'


def _path(k: int, objects: int, width: float, random: np.random.Generator) -> np.ndarray:
    """Return the path of object k: PERIOD×4 of x, y, scale, degrees, relative to the frame."""
    role = _role(k, objects)
    start = (k + 0.5) / objects
    path = np.array({'crosser': _CROSSER, 'wanderer': _WANDERER, 'leaver': _LEAVER}[role], float)
    # The leaver exits by the nearer side, the crosser moves to the farther side.
    outwards = 1 if start >= 0.5 else -1
    if role == 'leaver':
        out = (1 - start if outwards > 0 else start) + 0.8 * width
        path[:, 1] = np.where(path[:, 1] >= 1, path[:, 1] * out, path[:, 1]) * outwards
    elif role == 'crosser':
        path[:, 1] *= -outwards
    path[1:, 1:3] += random.uniform(-0.015, 0.015, (len(path) - 1, 2))
    path[:, 1] += start
    path[:, 2] += 0.6 + random.uniform(-0.04, 0.04)
    path[:, 4] *= random.choice((-1, 1)) * random.uniform(0.8, 1.2)
    return _periodic_spline(path[:, 0], path[:, 1:])


def _periodic_spline(frames: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sample a closed cubic Hermite curve through values K×D at frames K; returns PERIOD×D.

    Tangents are finite differences.
    """
    knots = np.concatenate((frames[-1:] - PERIOD, frames, frames[:2] + PERIOD))
    points = np.concatenate((values[-1:], values, values[:2]))
    slopes = (points[2:] - points[:-2]) / (knots[2:] - knots[:-2])[:, None]
    at = np.arange(PERIOD)
    which = np.searchsorted(frames, at, side='right') - 1
    begin, span = knots[which + 1], (knots[which + 2] - knots[which + 1])[:, None]
    u = (at - begin)[:, None] / span
    h00, h10 = 2 * u**3 - 3 * u**2 + 1, u**3 - 2 * u**2 + u
    h01, h11 = -2 * u**3 + 3 * u**2, u**3 - u**2
    return (
        h00 * points[which + 1] + h10 * span * slopes[which] + h01 * points[which + 2] + h11 * span * slopes[which + 1]
    )
