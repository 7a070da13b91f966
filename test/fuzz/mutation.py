# SPDX-License-Identifier: MIT
"""Random source of hostile values, and mutation of bytes and nested values."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar('T')

NUMBERS = [0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, -(2**31)]
NUMBERS += [2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**18, 10**30, 10**400]
FLOATS = [0.0, -0.0, 1e-320, 1e308, float('inf'), float('-inf'), float('nan'), 0.1, -1.5]
NAMES = [
    '..',
    '../canary/keep.txt',
    '../../canary/sub/keep.onnx',
    '/dev/zero',
    '/dev/stdin',
    '/etc/passwd',
    '.',
    '/',
    '',
]
NAMES += [
    'a' * 300,
    'a/' * 3000,
    '\x00',
    'x\x1b[31mx',
    '\u202e',
    '\ud800',
    '%n%s%x',
    '{0.__class__}',
    '$HOME',
    '~',
    '*',
]
NAMES += ["x'); import os; os.mkdir('HERE'); ('", "__import__('os').mkdir('HERE')", '"; DROP TABLE topics; --', '\n']
NAMES += ['@CANARY@/keep.txt', 'http://127.0.0.1:@PORT@/x', 'x' * 100_000, '1e999', '0x10', '-1', '٣', '1_000', 'nan']
LETTERS = [(32, 126), (0, 31), (0xA0, 0x2FF), (0x2000, 0x206F), (0xD800, 0xDFFF), (0xFFF0, 0xFFFF), (0x1F300, 0x1FAFF)]
SIZES = ['<B', '<H', '<I', '<Q', '>H', '>I', '>Q']


class Source:
    """Random source of one input.

    Arguments:
        seed: determines every draw.
        canary, port: of the sandbox; some texts name them.
    """

    def __init__(self, seed: str, canary: str = '', port: int = 0) -> None:
        self._random, self.canary, self.port = random.Random(seed), canary, port
        self.edits: list[str] = []  # descriptions of the edits made

    def note(self, text: str) -> None:
        """Record the description of an edit."""
        self.edits.append(text)

    def between(self, low: int, high: int) -> int:
        """Draw an integer; both ends are included."""
        return self._random.randint(low, max(low, high))

    def pick(self, items: Sequence[T]) -> T:
        """Draw one item."""
        return items[self.between(0, len(items) - 1)]

    def chance(self, percent: int) -> bool:
        """Draw true with the given probability in percent."""
        return self.between(0, 99) < percent

    def several(self, most: int = 4) -> range:
        """Draw a number of edits, small ones more often."""
        return range(self.pick([1, 1, 1, 2, 2, 3, most]))

    def number(self) -> int | float:
        """Draw a number at or beyond common limits."""
        kind = self.between(0, 9)
        if kind < 5:
            return self.pick(NUMBERS)
        if kind < 7:
            return self.pick(FLOATS)
        size = self._random.getrandbits(self.pick([8, 32, 64, 200]))
        return size if kind < 9 else math.ldexp(self._random.uniform(-1, 1), self.between(-1000, 1000))

    def field(self, low: int, high: int) -> int:
        """Draw an integer that fits a field, its limits included."""
        kind = self.between(0, 3)
        if kind == 0:
            return self.pick([low, high, max(low, 0), min(high, 1)])
        if kind == 1:
            return min(max(int(self.pick(NUMBERS)), low), high)
        return self.between(max(low, -300), min(high, 300)) if kind == 2 else self.between(low, high)

    def text(self) -> str:
        """Draw a hostile text: a path, an escape sequence, code, odd Unicode."""
        if self.chance(70):
            return self.pick(NAMES).replace('@CANARY@', self.canary).replace('@PORT@', str(self.port))
        kinds = [
            (32, 126),
            (0, 31),
            (0xA0, 0x2FF),
            (0x2000, 0x206F),
            (0xD800, 0xDFFF),
            (0xFFF0, 0xFFFF),
            (0x1F300, 0x1FAFF),
        ]
        return ''.join(chr(self.between(*self.pick(kinds))) for _ in range(self.between(0, 20)))

    def value(self) -> Any:
        """Draw any value of JSON or YAML."""
        kind = self.between(0, 11)
        if kind < 4:
            return self.number()
        if kind < 7:
            return self.text()
        odd: list[Callable[[], Any]] = [
            lambda: None,
            lambda: True,
            lambda: [],
            dict,
            lambda: nested(self.pick([5, 60, 300])),
        ]
        return odd[kind - 7]()

    def data(self, most: int = 64) -> bytes:
        """Draw up to `most` bytes."""
        return self._random.randbytes(self.between(0, most))


def nested(depth: int) -> Any:
    """Nest lists."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def mutate_bytes(source: Source, data: bytes, low: int = 0, high: int | None = None) -> bytes:
    """Mutate bytes between the offsets `low` and `high`, more often near the beginning."""
    for _ in source.several():
        end = min(len(data), len(data) if high is None else high)
        if not data or low >= end:
            data += source.data()
            continue
        place = source.between(low, end - 1) if source.chance(60) else source.between(low, min(end - 1, low + 64))
        kind = source.between(0, 8)
        span = source.pick([1, 2, 4, 8, 64, 1000])
        source.note(f'bytes: {kind} at {place}, {span}')
        if kind == 0:
            data = data[:place] + bytes([data[place] ^ (1 << source.between(0, 7))]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + bytes([source.between(0, 255)]) + data[place + 1 :]
        elif kind in (2, 3):
            form = source.pick(SIZES)
            size = struct.calcsize(form)
            number = int(source.pick(NUMBERS)) % (1 << (8 * size))
            data = data[:place] + struct.pack(form, number) + data[place + size :]
        elif kind == 4:
            data = data[:place] + data[place + span :]
        elif kind == 5:
            data = data[:place] + data[place : place + span] * source.pick([2, 2, 3, 100]) + data[place + span :]
        elif kind == 6:
            data = data[:place] + source.data() + data[place:]
        elif kind == 7:
            data = data[:place]
        else:
            data = data[:place] + bytes(min(span, len(data) - place)) + data[place + span :]
    return data


def paths_of(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths of all values in nested dictionaries and lists."""
    found = [above] if above else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += paths_of(value, (*above, key))
    return found


def mutate_tree(source: Source, tree: Any, values: Callable[[Any], Any] | None = None) -> Any:
    """Mutate nested dictionaries and lists: values, keys, order, depth.

    values: replaces a value; None: by anything.
    """
    tree = _copied(tree)
    for _ in source.several():
        paths = paths_of(tree)
        if not paths:
            return source.value()
        path = source.pick(paths)
        source.note(f'at {".".join(map(str, path))[:80]}')
        parent = tree
        for step in path[:-1]:
            parent = parent[step]
        key = path[-1]
        kind = source.between(0, 9)
        if kind < 5 or values is not None:
            parent[key] = values(parent[key]) if values else source.value()
        elif kind == 5:
            del parent[key]
        elif kind == 6:
            parent[key] = [parent[key]] if source.chance(50) else {'x': parent[key]}
        elif kind == 7 and isinstance(parent, dict):
            parent[source.text() if source.chance(50) else _hashable(source.value())] = parent.pop(key)
        elif kind == 8:
            other = source.pick(paths)
            parent[key] = _copied(_at(tree, other)) if len(other) >= len(path) else source.value()
        else:
            times = source.pick([2, 50, 3000])  # a tree that has grown already would exhaust the memory
            parent[key] = [_copied(parent[key]) for _ in range(times if len(paths) < 1000 else 2)]
    return tree


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        tree = tree[step] if isinstance(tree, list | dict) and (isinstance(tree, dict) or step < len(tree)) else None
    return tree


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def _hashable(value: Any) -> Any:
    return str(value)[:200] if isinstance(value, list | dict) else value
