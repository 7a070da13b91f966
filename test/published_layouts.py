# SPDX-License-Identifier: MIT
"""Tiny data sets in their published layouts, from real frames if available."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scene_files import FOOTAGE, save_frame, save_mask

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.media import read_image, read_mask

SIZE = (64, 112)  # height, width of the small frames, px
LENGTH = 12  # frames
PAIR = ('car-shadow', 'blackswan')  # shown side by side, as two objects


@cache
def clip(length: int = LENGTH, scale: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return frames H×W×3 uint8 with labels H×W of two objects, real or else rendered."""
    height, width = SIZE[0] * scale, SIZE[1] * scale
    folder = FOOTAGE / 'davis-val'
    if not folder.is_dir():
        return [(frame, labels) for frame, labels in RenderedScene((height, width), frames=length, objects=2)]
    half, pairs = (width // 2, height), []
    for number in range(length):
        images = [read_image(folder / 'JPEGImages' / name / f'{number:05d}.jpg') for name in PAIR]
        masks = [read_mask(folder / 'Annotations' / name / f'{number:05d}.png') > 0 for name in PAIR]
        small = [cv2.resize(mask.astype(np.uint8), half, interpolation=cv2.INTER_NEAREST) for mask in masks]
        frame = np.hstack([cv2.resize(image, half, interpolation=cv2.INTER_AREA) for image in images])
        pairs.append((frame, np.hstack([small[0], 2 * small[1]])))
    return pairs


def write_frames(folder: Path, frames: list[np.ndarray], names: list[str]) -> None:
    """Write frames as JPEGs with these names."""
    for name, frame in zip(names, frames, strict=True):
        save_frame(folder / f'{name}.jpg', frame)


def five(numbers: range) -> list[str]:
    """Format numbers as names of five digits."""
    return [f'{number:05d}' for number in numbers]


def davis(
    root: Path, *, binary: bool = False, split: str = 'val', large: bool = True, names: tuple[str, ...] = ('a',)
) -> Path:
    """Write DAVIS 2017 (trainval or test-dev), or 2016 if `binary`; return the root of the part."""
    part = root if binary else root / {'val': 'trainval', 'test-dev': 'test-dev'}[split]
    for resolution, scale in (('480p', 1), ('1080p' if binary else 'Full-Resolution', 2)):
        if scale > 1 and not large:
            continue
        for name in names:
            pairs = clip(LENGTH, scale)
            write_frames(part / 'JPEGImages' / resolution / name, [frame for frame, _ in pairs], five(range(LENGTH)))
            for number, (_, labels) in enumerate(pairs):
                if number and split == 'test-dev':
                    continue
                mask = np.where(labels > 0, 255, 0).astype(np.uint8) if binary else labels
                save_mask(part / 'Annotations' / resolution / name / f'{number:05d}.png', mask)
    listing = part / 'ImageSets' / ('480p' if binary else '2017') / f'{split}.txt'
    listing.parent.mkdir(parents=True)
    lines = [
        f'/JPEGImages/480p/{name}/{stem}.jpg /Annotations/480p/{name}/{stem}.png' if binary else name
        for name in names
        for stem in (five(range(LENGTH)) if binary else [''])
    ]
    listing.write_text('\n'.join(lines) + '\n')
    return part


LATE = 5  # first frame of the second object in YouTube-VOS and LVOS


def youtube(root: Path, name: str = 'v1') -> None:
    """Write YouTube-VOS, where results of every fifth frame are required.

    A frame without mask comes first; object 1 begins in the next frame, object 2 LATE frames later.
    """
    pairs = clip()
    frames = [pairs[0][0], *(frame for frame, _ in pairs)]
    stems = five(range(len(frames)))  # the first mask lies at 00001
    write_frames(root / 'all_frames' / 'valid_all_frames' / 'JPEGImages' / name, frames, stems)
    wanted = stems[1::5]
    write_frames(root / 'valid' / 'JPEGImages' / name, frames[1::5], wanted)
    masks = root / 'valid' / 'Annotations' / name
    save_mask(masks / f'{stems[1]}.png', np.where(pairs[0][1] == 1, 1, 0).astype(np.uint8))
    save_mask(masks / f'{stems[1 + LATE]}.png', np.where(pairs[LATE][1] == 2, 2, 0).astype(np.uint8))
    objects = {'1': {'category': 'car', 'frames': wanted}, '2': {'category': 'bird', 'frames': stems[1 + LATE :: 5]}}
    (root / 'valid' / 'meta.json').write_text(json.dumps({'videos': {name: {'objects': objects}}}))


def mose(root: Path, *, masks: int = 1) -> None:
    """Write the valid part of MOSE: the first mask shows object 1, further ones both objects."""
    pairs = clip()
    part = root / 'valid'
    write_frames(part / 'JPEGImages' / 'm1', [frame for frame, _ in pairs], five(range(LENGTH)))
    for number in range(masks):
        labels = pairs[number][1]
        save_mask(part / 'Annotations' / 'm1' / f'{number:05d}.png', labels * (labels == 1) if not number else labels)


def long_video(root: Path, part: str = 'long_video') -> list[str]:
    """Write Long-time Video with two objects; return the names of the frames with masks."""
    pairs = clip()
    write_frames(root / part / 'JPEGImages' / 'rat', [frame for frame, _ in pairs], five(range(LENGTH)))
    stems = five(range(0, LENGTH, 3))
    for stem in stems:
        save_mask(root / part / 'Annotations' / 'rat' / f'{stem}.png', pairs[int(stem)][1])
    return stems


def lvos(root: Path, *, part: str = 'valid', listed: bool = True, step: int = 1) -> list[str]:
    """Write LVOS with masks of every frame; return the names of the frames.

    Names have eight digits, from 1 on. Object 2 begins at frame LATE.
    step: difference of the numbers in the names of consecutive frames.
    """
    pairs = clip()
    stems = [f'{number:08d}' for number in range(1, 1 + step * LENGTH, step)]
    write_frames(root / part / 'JPEGImages' / 'l1', [frame for frame, _ in pairs], stems)
    for number, stem in enumerate(stems):
        labels = pairs[number][1]
        mask = labels if number >= LATE else labels * (labels == 1)
        save_mask(root / part / 'Annotations' / 'l1' / f'{stem}.png', mask)
    if listed:
        ranges = {'1': (stems[0], stems[-1]), '2': (stems[LATE], stems[-1])}
        objects = {value: {'frame_range': {'start': start, 'end': end}} for value, (start, end) in ranges.items()}
        (root / part / 'meta.json').write_text(json.dumps({'videos': {'l1': {'objects': objects}}}))
    return stems
