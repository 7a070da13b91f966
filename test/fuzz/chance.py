# SPDX-License-Identifier: MIT
"""What is drawn: odd numbers and texts, edits of bytes, edits of nested values."""

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


class Chance:
    """Draws for one input.

    Arguments:
        seed: that all follows from.
        canary, port: of the sandbox, for names that lead there.
    """

    def __init__(self, seed: str, canary: str = '', port: int = 0) -> None:
        self._random, self.canary, self.port = random.Random(seed), canary, port
        self.edits: list[str] = []  # what was done, in words

    def note(self, text: str) -> None:
        """Tell of an edit."""
        self.edits.append(text)

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, max(low, high))

    def pick(self, items: Sequence[T]) -> T:
        """One of several."""
        return items[self.whole(0, len(items) - 1)]

    def often(self, percent: int) -> bool:
        """Whether something happens that happens in so many of a hundred cases."""
        return self.whole(0, 99) < percent

    def several(self, most: int = 4) -> range:
        """For so many edits; few are more often."""
        return range(self.pick([1, 1, 1, 2, 2, 3, most]))

    def number(self) -> int | float:
        """A number that programs stumble over."""
        kind = self.whole(0, 9)
        if kind < 5:
            return self.pick(NUMBERS)
        if kind < 7:
            return self.pick(FLOATS)
        size = self._random.getrandbits(self.pick([8, 32, 64, 200]))
        return size if kind < 9 else math.ldexp(self._random.uniform(-1, 1), self.whole(-1000, 1000))

    def integer(self, low: int, high: int) -> int:
        """One that fits into a field of a message or a file, the ends of the range among them."""
        kind = self.whole(0, 3)
        if kind == 0:
            return self.pick([low, high, max(low, 0), min(high, 1)])
        if kind == 1:
            return min(max(int(self.pick(NUMBERS)), low), high)
        return self.whole(max(low, -300), min(high, 300)) if kind == 2 else self.whole(low, high)

    def text(self) -> str:
        """A text that programs stumble over."""
        if self.often(70):
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
        return ''.join(chr(self.whole(*self.pick(kinds))) for _ in range(self.whole(0, 20)))

    def value(self) -> Any:
        """Anything that JSON or YAML can hold."""
        kind = self.whole(0, 11)
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
        """Any bytes."""
        return self._random.randbytes(self.whole(0, most))


def nested(depth: int) -> Any:
    """A list in a list, and so on."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def spoil_bytes(chance: Chance, data: bytes, low: int = 0, high: int | None = None) -> bytes:
    """Edit bytes, at some places between `low` and `high`, more often near the beginning."""
    for _ in chance.several():
        end = min(len(data), len(data) if high is None else high)
        if not data or low >= end:
            data += chance.data()
            continue
        place = chance.whole(low, end - 1) if chance.often(60) else chance.whole(low, min(end - 1, low + 64))
        kind = chance.whole(0, 8)
        span = chance.pick([1, 2, 4, 8, 64, 1000])
        chance.note(f'bytes: {kind} at {place}, {span}')
        if kind == 0:
            data = data[:place] + bytes([data[place] ^ (1 << chance.whole(0, 7))]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + bytes([chance.whole(0, 255)]) + data[place + 1 :]
        elif kind in (2, 3):
            form = chance.pick(SIZES)
            size = struct.calcsize(form)
            number = int(chance.pick(NUMBERS)) % (1 << (8 * size))
            data = data[:place] + struct.pack(form, number) + data[place + size :]
        elif kind == 4:
            data = data[:place] + data[place + span :]
        elif kind == 5:
            data = data[:place] + data[place : place + span] * chance.pick([2, 2, 3, 100]) + data[place + span :]
        elif kind == 6:
            data = data[:place] + chance.data() + data[place:]
        elif kind == 7:
            data = data[:place]
        else:
            data = data[:place] + bytes(min(span, len(data) - place)) + data[place + span :]
    return data


def paths_of(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value lies in nested dictionaries and lists."""
    found = [above] if above else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += paths_of(value, (*above, key))
    return found


def spoil_tree(chance: Chance, tree: Any, values: Callable[[Any], Any] | None = None) -> Any:
    """Edit nested dictionaries and lists: values, keys, order, depth.

    values: makes another value of one; None: anything.
    """
    tree = _copied(tree)
    for _ in chance.several():
        paths = paths_of(tree)
        if not paths:
            return chance.value()
        path = chance.pick(paths)
        chance.note(f'at {".".join(map(str, path))[:80]}')
        parent = tree
        for step in path[:-1]:
            parent = parent[step]
        key = path[-1]
        kind = chance.whole(0, 9)
        if kind < 5 or values is not None:
            parent[key] = values(parent[key]) if values else chance.value()
        elif kind == 5:
            del parent[key]
        elif kind == 6:
            parent[key] = [parent[key]] if chance.often(50) else {'x': parent[key]}
        elif kind == 7 and isinstance(parent, dict):
            parent[chance.text() if chance.often(50) else _hashable(chance.value())] = parent.pop(key)
        elif kind == 8:
            other = chance.pick(paths)
            parent[key] = _copied(_at(tree, other)) if len(other) >= len(path) else chance.value()
        else:
            times = chance.pick([2, 50, 3000])  # not of what has grown already: that would be all of the memory
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
