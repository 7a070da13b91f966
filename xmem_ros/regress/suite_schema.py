# SPDX-License-Identifier: MIT
"""Keys of a suite as tables, for the checks and for docs/regress.md."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xmem_ros.errors import quoted
from xmem_ros.regress.figures import FIGURES

OFFLINE, LIVE = 'offline', 'live'
RECORDED = 'recorded'


@dataclass(frozen=True)
class Key:
    """Key of a mapping.

    Attributes:
        kind: allowed values, as text.
        description: for docs/regress.md and errors.
        fits: whether a value is allowed.
        default: as text.
    """

    kind: str
    description: str
    fits: Callable[[Any], bool]
    default: str = ''


def is_text(value: Any) -> bool:
    """Whether a value is text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def is_count(value: Any, least: int = 0) -> bool:
    """Whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """Whether a value is a finite number of 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float('inf')


def is_mapping(value: Any) -> bool:
    """Whether a value is a mapping with text as keys."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(is_count(part) for part in value)


def _is_boxes(value: Any) -> bool:
    return is_mapping(value) and bool(value) and all(_is_box(box) for box in value.values())


def _is_objects(value: Any) -> bool:
    return isinstance(value, dict) and all(is_count(k, 1) and k < 255 and is_text(name) for k, name in value.items())


SUITE = {
    'baseline': Key(
        'a file',
        'figures of an earlier run to compare with, unless the command names a file; to be updated, it must be in the '
        'folder of the suite',
        is_text,
        'none',
    ),
    'defaults': Key(
        'keys of a case',
        'defaults of all cases; `parameters`, `reference`, `expect` and `tolerance` are merged key by key, '
        'and figures of live runs are ignored in offline cases',
        is_mapping,
        'none',
    ),
    'cases': Key('a list of cases', 'the cases, in order', lambda value: isinstance(value, list) and bool(value)),
}

CASE = {
    'name': Key('text', 'unique name of the case', is_text),
    'input': Key('a path', 'bag, video or folder of frames', is_text),
    'image_topic': Key('a topic', 'image topic, if a bag has several', is_text, 'the only one'),
    'frames': Key('a whole number', 'maximum number of frames; 0: all', is_count, '`0`'),
    'allow_damage': Key(
        '`true` or `false`',
        'accept a recording or reference bag that was cut off or is partly unreadable, with a note',
        lambda value: isinstance(value, bool),
        '`false`',
    ),
    'seeds': Key(
        'a path, `recorded`, or keys',
        'a mask or label image for the first frame, a YAML file of seeds (both as for `xmem-ros track`), '
        '`recorded` (the `~/events` or `~/seeds` in the bag), or the keys below',
        lambda value: is_text(value) or is_mapping(value),
        f'`{RECORDED}`',
    ),
    'runner': Key(
        f'`{OFFLINE}` or `{LIVE}`',
        'offline: in this process, without ROS; live: frame by frame through a node, over DDS',
        lambda value: value in (OFFLINE, LIVE),
        f'`{OFFLINE}`',
    ),
    'node': Key(
        "a node's name",
        'live: name of a running node to use; it is reset first and keeps its parameters',
        is_text,
        'one is started for the case',
    ),
    'params_file': Key('a path', "the node's parameters, as in config/track.yaml", is_text, 'none'),
    'parameters': Key(
        'names and values', 'single parameters of the node (docs/parameters.md); they override the file', is_mapping
    ),
    'reference': Key('keys', 'the reference masks, see below', is_mapping),
    'expect': Key('figures', 'limits of figures, see below', is_mapping, 'nothing'),
    'tolerance': Key(
        'figures',
        'how much worse than the baseline each figure may be, in its unit',
        is_mapping,
        'see below',
    ),
    'timeout': Key(
        'seconds, 0.1 or more',
        'live: time limit for the node, and for one result',
        lambda value: is_number(value) and value >= 0.1,
        '`60`',
    ),
}

SEEDS = {
    'topic': Key(
        'a topic',
        'topic of recorded seeds, if the bag has several; not with the other keys',
        is_text,
        'the only one',
    ),
    'mask': Key('a path', 'a mask or label image', is_text),
    'boxes': Key('name: [x, y, width, height]', 'boxes around objects, px', _is_boxes),
    'at': Key(
        'a whole number, or text',
        "the frame of `mask` and `boxes`: its number from 0, or its stamp in seconds, as text: `'1700000000.25'`",
        lambda value: is_count(value) or is_text(value),
        '`0`, the first',
    ),
}

REFERENCE = {
    'folder': Key(
        'a path',
        'PNG masks, named like their frames, by stamp (nanoseconds, or seconds.nanoseconds with nine digits), '
        'or by frame number from 0 with at least five digits',
        is_text,
    ),
    'bag': Key(
        'a path',
        'a bag with label images (mono8) with the stamps of the images; stamps are unique and not 0',
        is_text,
        '`input`',
    ),
    'topic': Key('a topic', 'topic of the label images in the bag', is_text),
    'objects': Key(
        'value: name',
        'name of the tracked object for each value of the reference; other values are ignored',
        _is_objects,
        'all values, each with its first match',
    ),
    'min_area': Key(
        'px',
        'minimum area of an object in the reference; smaller ones are ignored in that frame, absent ones are not',
        is_count,
        '`16`',
    ),
}


def faults_of(keys: Mapping[str, Key], given: Mapping[str, Any], where: str) -> list[str]:
    """Return the faults of a mapping, unknown keys and invalid values, each with its key."""
    faults = []
    for name, value in given.items():
        if name not in keys:
            close = difflib.get_close_matches(name, list(keys), 1)
            hint = f'did you mean {close[0]}?' if close else f'known: {", ".join(keys)}'
            faults.append(f'{where}{name}: unknown key; {hint}')
        elif not keys[name].fits(value):
            faults.append(f'{where}{name} is {quoted(value)}; it must be {keys[name].kind.replace("`", "")}')
    return faults


def figure_faults(given: Mapping[str, Any], where: str) -> list[str]:
    """Return the faults of limits or tolerances."""
    faults = []
    for name, value in given.items():
        if name not in FIGURES:
            close = difflib.get_close_matches(name, list(FIGURES), 1)
            hint = f'did you mean {close[0]}?' if close else f'known: {", ".join(FIGURES)}'
            faults.append(f'{where}{name}: unknown figure; {hint}')
        elif isinstance(value, dict) and name == 'object_iou':
            if not value or not all(is_text(key) or is_count(key) for key in value):
                faults.append(
                    f'{where}{name} is {quoted(value)}; it must be a number, or names of objects with a number each'
                )
            faults += [
                f'{where}{name}.{key} is {quoted(one)}; {fault}'
                for key, one in value.items()
                if (fault := FIGURES[name].fault(one))
            ]
        elif fault := FIGURES[name].fault(value):
            faults.append(f'{where}{name} is {quoted(value)}; {fault}')
    return faults


def tables() -> str:
    """Return all keys and figures as Markdown tables."""
    parts = []
    for title, keys in (
        ('The suite', SUITE),
        ('A case', CASE),
        ('Keys of `seeds`', SEEDS),
        ('Keys of `reference`', REFERENCE),
    ):
        lines = [f'### {title}', '', '| key | value | default | description |', '| --- | --- | --- | --- |']
        lines += [f'| `{name}` | {key.kind} | {key.default or "–"} | {key.description} |' for name, key in keys.items()]
        parts.append('\n'.join(lines))
    lines = [
        '### Figures: keys of `expect` and `tolerance`',
        '',
        '| key | expected | unit | default tolerance | description |',
        '| --- | --- | --- | --- | --- |',
    ]
    for name, figure in FIGURES.items():
        side = 'at least' if figure.more_is_better else 'at most'
        tolerance = 'not compared' if figure.tolerance is None else f'{figure.tolerance:g}'
        live = '; live only' if figure.live_only else ''
        lines.append(f'| `{name}` | {side} | {figure.unit} | {tolerance} | {figure.description}{live} |')
    parts.append('\n'.join(lines))
    return '\n\n'.join(parts) + '\n'


if __name__ == '__main__':
    print(tables(), end='')
