# SPDX-License-Identifier: MIT
"""Random invalid requests, for trial `fuzz`.

Input that docs/node.md allows is not drawn: extra bytes after an image, an id twice in a removal,
two images of one stamp.
"""

from __future__ import annotations

import array
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from lifecycle_msgs.srv import ChangeState
from node_harness import box_seed, mask_seed, points_seed
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from xmem_ros.msg import Seed
from xmem_ros.srv import LoadMemory, PreviewSeed, RemoveObjects, SaveMemory, SeedObjects

MOST_32 = 2**32 - 1
ODD_TEXTS = (
    '',
    ' ',
    'ünïcødé 対象 🤖',
    'x' * 100_000,
    '\u202eright to left',
    'line\nbreak',
    '%s%n{0}{x!r}',
    '"\'\\',
    'rgb8 ',
    '../../rgb8',
)
NOT_NUMBERS = (math.nan, math.inf, -math.inf, 3e38, -3e38)


@dataclass
class World:
    """State of the fuzzed node."""

    size: tuple[int, int]  # H, W
    mask: np.ndarray  # a valid mask, H×W bool
    ids: tuple[int, ...]  # tracked ids
    room: int  # number of objects that can still be seeded
    folder: Path  # folder of memory files, with a valid one, `good`


@dataclass(frozen=True)
class Wrong:
    """Request that must be refused."""

    what: str
    kind: type
    service: str
    request: Any


def wrong_request(chance: random.Random, world: World) -> Wrong:
    """Draw one of the requests."""
    family = chance.choices((_seed, _removal, _memory, _parameter, _transition), (12, 3, 4, 2, 1))[0]
    return family(chance, world)


# --- seeds


def _seed(chance: random.Random, world: World) -> Wrong:
    maker = chance.choice(_SEEDS)
    seeds = maker(chance, world)
    stamp = Time()
    if maker is _good:
        stamp = _unknown_stamp(chance)
    elif len(seeds) == 1:
        if chance.random() < 0.2:  # an invalid seed among valid ones
            seeds = [_of_mask(world.mask), *seeds]
        if chance.random() < 0.2:
            seeds[-1].name = chance.choice(ODD_TEXTS)
    kind, service, request = SeedObjects, 'seed', SeedObjects.Request(seeds=seeds)
    if len(seeds) == 1 and chance.random() < 0.2:
        kind, service, request = PreviewSeed, 'preview_seed', PreviewSeed.Request(seed=seeds[0])
    request.header.stamp = stamp
    request.header.frame_id = chance.choice(('', *ODD_TEXTS))
    return Wrong(f'{service}: {maker.__name__.strip("_").replace("_", " ")}', kind, f'~/{service}', request)


def _of_mask(mask: np.ndarray, **options: Any) -> Seed:
    return mask_seed(mask, **options)


def _good(_: random.Random, world: World) -> list[Seed]:
    return [_of_mask(world.mask)]


def _no_seed(_: random.Random, __: World) -> list[Seed]:
    return []


def _empty_mask(_: random.Random, world: World) -> list[Seed]:
    return [_of_mask(np.zeros(world.size, np.uint8))]


def _mask_of_another_size(chance: random.Random, world: World) -> list[Seed]:
    height, width = world.size
    size = chance.choice(
        ((height + 1, width), (height, width - 1), (width, height), (1, 1), (1, 65536), (2 * height, 2 * width))
    )
    return [_of_mask(np.ones(size, np.uint8), kind=chance.choice((Seed.MASK, Seed.LABELS)))]


def _mask_that_cannot_be_read(chance: random.Random, world: World) -> list[Seed]:
    seed = _of_mask(world.mask, kind=chance.choice((Seed.MASK, Seed.LABELS)))
    spoil_layout(chance, seed.mask, 1)
    return [seed]


def _mask_of_another_encoding(chance: random.Random, world: World) -> list[Seed]:
    seed = _of_mask(world.mask)
    seed.mask.encoding = chance.choice(('rgb8', 'mono16', '16UC1', '32FC1', 'bayer_rggb8', 'MONO8', *ODD_TEXTS))
    return [seed]


def _empty_labels(_: random.Random, world: World) -> list[Seed]:
    return [_of_mask(np.zeros(world.size, np.uint8), kind=Seed.LABELS)]


def _too_many_labels(chance: random.Random, world: World) -> list[Seed]:
    values = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, world.size).astype(np.uint8)
    values[0, : world.room + 2] = range(255, 253 - world.room, -1)
    return [_of_mask(values, kind=Seed.LABELS)]


def _labels_with_an_id(chance: random.Random, world: World) -> list[Seed]:
    values = np.where(world.mask, np.uint8(255), np.uint8(0))
    return [_of_mask(values, kind=Seed.LABELS, object_id=chance.choice((*world.ids, 99, MOST_32)))]


def _box_outside(chance: random.Random, world: World) -> list[Seed]:
    height, width = world.size
    x, y, across, down = chance.randrange(width), chance.randrange(height), 8, 8
    match chance.randrange(5):
        case 0:
            x = chance.choice((width - 3, width, MOST_32, 2**31))
        case 1:
            y = chance.choice((height - 3, height, MOST_32, 2**31))
        case 2:
            across = chance.choice((MOST_32, 2**31, width + 1))
        case 3:
            down = chance.choice((MOST_32, 2**31, height + 1))
        case _:
            x, across = MOST_32, 5  # their sum is 4 in 32 bits
    return [box_seed(x, y, across, down)]


def _box_too_small(chance: random.Random, _: World) -> list[Seed]:
    across, down = chance.choice(((0, 0), (0, 20), (20, 0), (1, 1), (3, 20), (20, 3)))
    return [box_seed(5, 5, across, down)]


def _points_of_another_count(chance: random.Random, _: World) -> list[Seed]:
    points, labels = chance.choice(((0, 1), (1, 0), (3, 2), (2, 3), (1, 50_000), (20_000, 1)))
    return [points_seed([(9, 9)] * points, [1] * labels)]


def _points_without_one_on_the_object(chance: random.Random, _: World) -> list[Seed]:
    count = chance.choice((0, 1, 5))
    return [points_seed([(9, 9)] * count, [0] * count)]


def _point_labels_that_are_none(chance: random.Random, _: World) -> list[Seed]:
    count = chance.choice((1, 3, 20_000))
    return [points_seed([(9, 9)] * count, [chance.choice((-128, -1, 2, 127))] * count)]


def _points_outside(chance: random.Random, world: World) -> list[Seed]:
    height, width = world.size
    wrong = [(9.0, 9.0), (9.0, 9.0)]
    bad = chance.choice((*NOT_NUMBERS, -1.0, float(max(height, width))))
    wrong.insert(chance.randrange(3), chance.choice(((bad, 9.0), (9.0, bad), (bad, bad))))
    wrong *= chance.choice((1, 1, 3000))
    return [points_seed(wrong, [1] * len(wrong))]


def _one_pixel_twice(_: random.Random, __: World) -> list[Seed]:
    return [points_seed([(9.2, 9.1), (9.8, 9.9)], [1, 0])]


def _unknown_kind(chance: random.Random, world: World) -> list[Seed]:
    seed = _of_mask(world.mask)
    seed.kind = chance.randrange(4, 256)
    return [seed]


def _unknown_id(chance: random.Random, world: World) -> list[Seed]:
    return [_of_mask(world.mask, object_id=chance.choice((max(world.ids) + 1, 255, 65536, 2**31, MOST_32)))]


def _id_twice(chance: random.Random, world: World) -> list[Seed]:
    return [_of_mask(world.mask, object_id=chance.choice(world.ids))] * 2


def _too_many(chance: random.Random, world: World) -> list[Seed]:
    count = chance.choice((world.room + 1, 255, 1000))
    if chance.random() < 0.5:
        return [box_seed(5, 5, 60, 60) for _ in range(count)]
    return [_of_mask(world.mask) for _ in range(min(count, 300))]


def _unknown_stamp(chance: random.Random) -> Time:
    return chance.choice(
        (
            Time(sec=-1),
            Time(sec=-(2**31), nanosec=MOST_32),
            Time(sec=2**31 - 1, nanosec=999_999_999),
            Time(sec=0, nanosec=1),
            Time(sec=1, nanosec=MOST_32),
            Time(sec=chance.randrange(10**9, 2 * 10**9), nanosec=chance.randrange(10**9)),
        )
    )


_SEEDS = (
    _good,
    _no_seed,
    _empty_mask,
    _mask_of_another_size,
    _mask_that_cannot_be_read,
    _mask_of_another_encoding,
    _empty_labels,
    _too_many_labels,
    _labels_with_an_id,
    _box_outside,
    _box_too_small,
    _points_of_another_count,
    _points_without_one_on_the_object,
    _point_labels_that_are_none,
    _points_outside,
    _one_pixel_twice,
    _unknown_kind,
    _unknown_id,
    _id_twice,
    _too_many,
)


def spoil_layout(chance: random.Random, image: Any, row_bytes: int) -> str:
    """Make size, step and data of an Image inconsistent, in place; returns the fault."""
    height, width, step = image.height, image.width, image.step
    match chance.randrange(7):
        case 0:
            image.height, image.width = chance.choice(((0, width), (height, 0), (0, 0)))
            return 'no pixels'
        case 1:
            image.step = chance.choice((0, 1, step - 1, chance.randrange(step)))
            return 'a step too short'
        case 2:
            image.step = chance.choice((MOST_32, 2**31, step + 1, 2 * step))
            return 'a step too long'
        case 3:
            image.data = array.array('B')
            return 'no data'
        case 4:
            image.data = image.data[: chance.randrange(len(image.data))]
            return 'cut off'
        case 5:
            image.height, image.width = chance.choice(((MOST_32, MOST_32), (height, MOST_32), (2**31, width)))
            image.step = chance.choice((MOST_32, step))
            return 'a huge size'
        case _:
            image.height, image.width, image.step = 1, MOST_32 // row_bytes, MOST_32 // row_bytes * row_bytes
            image.data = array.array('B', bytes(chance.randrange(64)))
            return 'a huge row'


# --- the other services


def _removal(chance: random.Random, world: World) -> Wrong:
    unknown = chance.choice((0, max(world.ids) + 1, 255, 2**31, MOST_32))
    match chance.randrange(5):
        case 0:
            what, ids, everything = 'nothing named', [], False
        case 1:
            what, ids, everything = 'ids and all', list(world.ids), True
        case 2:
            what, ids, everything = 'an unknown id', [unknown], False
        case 3:
            what, ids, everything = 'an unknown id among known ones', [*world.ids, unknown, unknown], False
        case _:
            what, ids, everything = 'very many ids', list(range(100, 50_100)), False
    return Wrong(f'remove: {what}', RemoveObjects, '~/remove', RemoveObjects.Request(ids=ids, all=everything))


def _memory(chance: random.Random, world: World) -> Wrong:
    bad = (
        '',
        '.',
        '..',
        '../outside',
        '../../etc/passwd',
        '/etc/passwd',
        '/absolute',
        'a/b',
        'a\\b',
        '~',
        '~/x',
        '.hidden',
        '-rf',
        'a b',
        'a\nb',
        '\0a',
        'ü',
        'мир',
        '🤖',
        'x' * 101,
        'x' * 100_000,
        '$(reboot)',
        'a;b',
        'good\u200b',
    )
    if chance.random() < 0.5:
        name, what = chance.choice(bad), chance.choice(('save', 'load'))
        kind = SaveMemory if what == 'save' else LoadMemory
        return Wrong(f'{what}: a name that is none', kind, f'~/{what}_memory', kind.Request(name=name))
    return Wrong('load: a damaged file', LoadMemory, '~/load_memory', LoadMemory.Request(name=_damaged(chance, world)))


def _damaged(chance: random.Random, world: World) -> str:
    """Return the name of a file that is not a memory file."""
    good = (world.folder / 'good.safetensors').read_bytes()
    path = world.folder / 'bad.safetensors'
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    match chance.randrange(8):
        case 0:
            return 'missing'
        case 1:
            path.write_bytes(b'')
        case 2:
            path.write_bytes(good[: chance.randrange(len(good))])
        case 3:
            data = bytearray(good)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
        case 4:
            data = bytearray(good)
            data[chance.randrange(min(2000, len(data)))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
        case 5:
            path.write_bytes(chance.randbytes(1000))
        case 6:
            path.mkdir()
        case _:
            path.symlink_to(chance.choice(('/etc/passwd', '/dev/zero', '../../x')))
    return 'bad'


def _parameter(chance: random.Random, _: World) -> Wrong:
    name, value = chance.choice(
        (
            ('min_score', 1.5),
            ('min_score', math.nan),
            ('min_score', math.inf),
            ('min_score', 'high'),
            ('min_area', -1),
            ('min_area', 2**62),
            ('memory_every', 0),
            ('memory_every', True),
            ('memory_every', [1, 2]),
            ('on_time_jump', 'x' * 10_000),
            ('on_time_jump', 'мир'),
            ('jpeg_quality', 101),
            ('lost_after', -0.1),
            ('max_objects', 7),
            ('seed_detections.classes', [1, 2]),
            ('no_such_parameter', 1),
            ('memory.', 1),
        )
    )
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return Wrong(f'parameter: {name}', SetParameters, '~/set_parameters', request)


def _transition(chance: random.Random, _: World) -> Wrong:
    request = ChangeState.Request()
    # configure, cleanup and activate cannot be taken while active, the rest are none
    request.transition.id = chance.choice((1, 2, 3, 77, 200, 255))
    request.transition.label = chance.choice(('', '', *ODD_TEXTS[2:5])) if request.transition.id > 3 else ''
    return Wrong('transition', ChangeState, '~/change_state', request)
