# SPDX-License-Identifier: MIT
"""Parts of the rendered scene: textured objects with an outline, and a room."""

import cv2
import numpy as np

NAMES = ('ball', 'mug', 'box', 'star', 'fish', 'leaf')

_HUES = {'ball': 4, 'mug': 106, 'box': 24, 'star': 150, 'fish': 12, 'leaf': 55}  # OpenCV's 0…180
_SUPERSAMPLING = 4  # for smooth edges


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Convert an OpenCV hue (0…180), saturation and value (0…1) to RGB, 0…255."""
    pixel = np.array([[[hue % 180, saturation * 255, value * 255]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def _noise(shape: tuple[int, int], cells: float, random: np.random.Generator) -> np.ndarray:
    """Make smooth noise, H×W float32, about -1…1; `cells`: noise cells along the longer side."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(3):
        count = cells * 2**octave / max(shape)
        grid = random.normal(0, 1, (max(2, round(height * count)), max(2, round(width * count)))).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total / 2


def _outline(name: str, side: int) -> np.ndarray:
    """Draw a shape: side×side uint8, 255 inside."""
    shape = np.zeros((side, side), np.uint8)

    def points(xy: list[tuple[float, float]]) -> list[np.ndarray]:
        return [(np.array(xy) * side).round().astype(np.int32)]

    def at(x: float) -> int:
        return round(x * side)

    if name == 'ball':
        cv2.circle(shape, (at(0.5), at(0.5)), at(0.40), 255, -1)
    elif name == 'mug':
        cv2.ellipse(shape, (at(0.72), at(0.5)), (at(0.17), at(0.19)), 0, 0, 360, 255, at(0.07))
        cv2.rectangle(shape, (at(0.16), at(0.2)), (at(0.68), at(0.76)), 255, -1)
        cv2.ellipse(shape, (at(0.42), at(0.2)), (at(0.26), at(0.08)), 0, 0, 360, 255, -1)
        cv2.ellipse(shape, (at(0.42), at(0.76)), (at(0.26), at(0.1)), 0, 0, 360, 255, -1)
    elif name == 'box':
        cv2.fillPoly(
            shape, points([(0.12, 0.32), (0.34, 0.14), (0.9, 0.18), (0.88, 0.66), (0.68, 0.86), (0.14, 0.8)]), 255
        )
    elif name == 'star':
        turn = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2, 0.24, 0.45)
        corners = [(0.5 + r * np.cos(t), 0.52 + r * np.sin(t)) for r, t in zip(radius, turn, strict=True)]
        cv2.fillPoly(shape, points(corners), 255)
    elif name == 'fish':
        cv2.ellipse(shape, (at(0.42), at(0.5)), (at(0.32), at(0.2)), 0, 0, 360, 255, -1)
        cv2.fillPoly(shape, points([(0.62, 0.5), (0.92, 0.26), (0.86, 0.5), (0.92, 0.74)]), 255)
        cv2.fillPoly(shape, points([(0.3, 0.34), (0.5, 0.16), (0.56, 0.36)]), 255)
    else:
        x = np.linspace(0, 1, 60)
        half = 0.26 * np.sin(np.pi * x) ** 0.8 * (1 + 0.12 * np.sin(14 * np.pi * x))
        rim = [(0.1 + 0.75 * u, 0.5 - h) for u, h in zip(x, half, strict=True)]
        rim += [(0.1 + 0.75 * u, 0.5 + h) for u, h in zip(x[::-1], half[::-1], strict=True)]
        cv2.fillPoly(shape, points(rim), 255)
        cv2.line(shape, (at(0.8), at(0.5)), (at(0.95), at(0.56)), 255, at(0.035))
    return shape


def _paint(name: str, side: int, random: np.random.Generator) -> np.ndarray:
    """Draw the texture of an object, without shading: side×side×3 float32."""
    y, x = (np.mgrid[0:side, 0:side] / side).astype(np.float32)
    hue = _HUES[name] + random.uniform(-5, 5)
    first, second = _colour(hue, 0.85, 0.85), _colour(hue + random.uniform(14, 26), 0.30, 0.95)
    bend = 0.03 * _noise((side, side), 4, random)
    if name == 'ball':
        angle = np.arctan2(y - 0.5, x - 0.5 + bend)
        pattern = (np.sin(3 * angle) > 0) & (np.hypot(x - 0.5, y - 0.5) > 0.1)
    elif name == 'mug':
        pattern = (np.abs(y - 0.5 + 0.05 * np.sin(22 * x)) < 0.08) | (np.hypot(x - 0.42, (y - 0.2) * 2.6) < 0.21)
    elif name == 'box':
        pattern = ((np.floor(x * 9 + bend * 4) + np.floor(y * 9)) % 2 > 0) & (x < 0.7) & (y > 0.3)
    elif name == 'star':
        pattern = np.hypot((x * 7) % 1 - 0.5, (y * 7 + np.floor(x * 7) % 2 * 0.5) % 1 - 0.5) < 0.28
    elif name == 'fish':
        pattern = (np.sin(40 * (x + bend) - 6 * np.abs(y - 0.5)) > 0.2) & (x > 0.22)
        pattern |= np.hypot(x - 0.18, y - 0.46) < 0.03
    else:
        pattern = (np.abs(y - 0.5) < 0.015) | (np.abs((x * 8 + np.abs(y - 0.5) * 6) % 1 - 0.5) < 0.09)
    paint = np.where(pattern[..., None], second, first).astype(np.float32)
    return paint * (1 + 0.12 * _noise((side, side), 18, random))[..., None]


def _shade(name: str, side: int) -> np.ndarray:
    """Return the shading of an object, a gain side×side float32."""
    y, x = (np.mgrid[0:side, 0:side] / side).astype(np.float32)
    if name == 'ball':
        shade = 1.2 - 1.5 * np.hypot(x - 0.38, y - 0.35) ** 2 / 0.4
        return shade + 0.6 * np.exp(-((x - 0.36) ** 2 + (y - 0.32) ** 2) / 0.004)
    if name == 'mug':
        rim = np.hypot(x - 0.42, (y - 0.2) * 3.2) < 0.23
        return np.where(rim, 0.45 + 0.5 * x, 1.15 - 2.2 * (x - 0.36) ** 2).astype(np.float32)
    if name == 'box':
        lid = y < 0.32 + 0.04 * x
        right = x > 0.68 + (0.32 - y) * 0.02
        return np.where(lid, 1.15, np.where(right, 0.6, 0.92)).astype(np.float32)
    return 1.1 - 0.5 * ((x - 0.4) ** 2 + (y - 0.4) ** 2)


def render(name: str, side: int, random: np.random.Generator) -> np.ndarray:
    """Render an object: side×side×4 float32, premultiplied RGB and opacity, 0…255."""
    fine = side * _SUPERSAMPLING
    outline = _outline(name, fine)
    image = np.clip(_paint(name, fine, random) * _shade(name, fine)[..., None], 0, 255)
    # A darker rim, as on real objects.
    inside = cv2.distanceTransform(outline, cv2.DIST_L2, 3) / fine
    image *= (0.65 + 0.35 * np.clip(inside / 0.03, 0, 1))[..., None]
    opacity = outline.astype(np.float32)[..., None]
    return cv2.resize(np.concatenate((image * (opacity / 255), opacity), 2), (side, side), interpolation=cv2.INTER_AREA)


def room(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Render a wall with pictures and a wooden table, uint8 RGB, larger than the frame."""
    tall, wide = round(height * 1.45), round(width * 1.5)
    y, x = np.mgrid[0:tall, 0:wide].astype(np.float32)
    x, y = x / height, y / height  # keeps proportions
    hue = random.uniform(20, 120)
    wall = _colour(hue, 0.18, 0.75) * np.where((x * 9) % 1 < 0.5, 1.0, 0.93)[..., None]
    wall = wall * (1 + 0.10 * _noise((tall, wide), 12, random))[..., None]
    edge = round(tall * 0.5)
    for place in np.linspace(0.06, 0.8, 4):
        left = round((place + random.uniform(-0.02, 0.02)) * wide)
        top, high, broad = (
            round(tall * random.uniform(0.06, 0.14)),
            round(tall * 0.26),
            round(wide * random.uniform(0.1, 0.16)),
        )
        cv2.rectangle(wall, (left, top), (left + broad, top + high), _colour(15, 0.6, 0.35).tolist(), -1)
        picture = wall[top + 5 : top + high - 4, left + 5 : left + broad - 4]
        blend = np.clip(_noise(picture.shape[:2], 3, random) + 0.5, 0, 1)[..., None]
        tint = random.uniform(0, 180)
        picture[:] = _colour(tint, 0.5, 0.8) * blend + _colour(tint + 70, 0.5, 0.45) * (1 - blend)
    grain = np.sin(60 * (y + 0.02 * _noise((tall, wide), 9, random))) * 0.05 + 0.10 * _noise((tall, wide), 40, random)
    seams = np.where((y * 5) % 1 < 0.05, 0.7, 1.0) * (1 + 0.06 * (np.floor(y * 5) % 3 - 1))
    table = _colour(13, 0.55, 0.62) * ((1 + grain) * seams)[..., None]
    image = wall.copy()
    image[edge:] = table[edge:]
    image[edge : edge + max(2, tall // 60)] *= 0.6
    return np.clip(image, 0, 255).astype(np.uint8)
