# SPDX-License-Identifier: MIT
"""Results of cases: figures, checks, and the stored baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.data_files import read_json
from xmem_ros.errors import ParameterError, Setting, XMemError, listed, naming, quoted
from xmem_ros.regress.figures import FIGURES, Figures, figure_of, formatted, is_worse
from xmem_ros.regress.files import write_file

if TYPE_CHECKING:
    from xmem_ros.regress.overlaps import ObjectScore
    from xmem_ros.regress.suite import Case

VERSION = 1  # of the JSON files
FRAMES = {'tracked_frames': 'frames', 'compared_frames': 'compared'}  # figure → key of a case in JSON results
MET, UNMET, ERROR = 'met', 'unmet', 'error'


@dataclass(frozen=True)
class Check:
    """One check of a figure.

    Attributes:
        figure: name of the figure.
        met: whether the check passed.
        text: the figure and its limit, as printed.
        against: `expected` or `baseline`.
    """

    figure: str
    met: bool
    text: str
    against: str = 'expected'


@dataclass(frozen=True)
class Tile:
    """Picture of a frame for the report, JPEG in base64: tracked masks beside the reference."""

    caption: str
    image: str


@dataclass
class Result:
    """Result of a case."""

    name: str
    runner: str
    parameters: Mapping[str, Any] = field(default_factory=dict)  # as given in the case
    figures: Figures = field(default_factory=dict)
    objects: list[ObjectScore] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    frames: int = 0  # tracked
    compared: int = 0  # with a reference mask
    seconds: float = 0.0
    error: str = ''
    notes: list[str] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    damage: str = ''  # of the recording or the reference, unless the case allows it
    baseline: Figures | None = None  # figures to compare with
    incomplete_baseline: bool = False  # it lacks the case or figures

    @property
    def state(self) -> str:
        """`met`, `unmet` or `error`."""
        if self.error:
            return ERROR
        return MET if all(check.met for check in self.checks) else UNMET

    @property
    def faults(self) -> list[str]:
        """Texts of the error or the failed checks."""
        return [self.error] if self.error else [check.text for check in self.checks if not check.met]

    def record(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            'state': self.state,
            'runner': self.runner,
            'parameters': dict(self.parameters),
            'frames': self.frames,
            'compared': self.compared,
            'seconds': round(self.seconds, 3),
            'figures': rounded(self.figures),
            'checks': [{'figure': c.figure, 'against': c.against, 'met': c.met, 'text': c.text} for c in self.checks],
            'error': self.error,
            'notes': self.notes,
            'objects': {
                item.name: {
                    'value': item.value,
                    'id': item.key,
                    'id_switches': item.switches,
                    'recovery_frames': item.recovery,
                    'lost': item.lost,
                    'iou': {frame: round(value, 4) for frame, value in item.iou.items()},
                }
                for item in self.objects
            },
        }


def check(result: Result, case: Case, baseline: Figures | None) -> None:
    """Add the checks of a result: the limits of the suite, and the baseline."""
    result.baseline = baseline
    result.checks = _expected(result.figures, case)
    if result.damage:
        text = f'{result.damage}; copy or record it again, or set allow_damage: true'
        result.checks.insert(0, Check('damage', False, text))
    if not case.expect and baseline is None:
        result.notes.append('the case has no limits, so it always passes; add expect, or a baseline')
    if baseline is not None:
        result.checks += _compared(result.figures, case, baseline)
        if unknown := [name for name in FRAMES if name not in baseline]:
            result.notes.append(
                f'the baseline lacks {" and ".join(unknown)}, so a shorter recording or reference is not detected; '
                'update it'
            )
            result.incomplete_baseline = True


def _expected(figures: Figures, case: Case) -> list[Check]:
    checks = []
    for name, limit in case.expect.items():
        found = {name: figures[name]} if name in figures else {}
        if name == 'object_iou':
            found = {key: value for key, value in figures.items() if key.startswith('object_iou.')}
        if not found and name == 'recovery_frames':
            checks.append(Check(name, True, 'recovery_frames: no object was absent'))
        elif not found:
            known = [key.partition('.')[2] for key in figures if key.startswith('object_iou.')]
            hint = f'; the objects are {listed(known)}' if name.startswith('object_iou.') else ''
            checks.append(Check(name, False, f'{name}: not measured{hint}'))
        side = 'at least' if figure_of(name).more_is_better else 'at most'
        for key, value in found.items():
            text = f'{key} is {formatted(key, value)}; expected: {side} {formatted(key, limit)}'
            checks.append(Check(key, not is_worse(key, value, limit), text))
    return checks


def _compared(figures: Figures, case: Case, baseline: Figures) -> list[Check]:
    checks = []
    for name, before in baseline.items():
        tolerance = case.tolerance_of(name)
        if tolerance is None:
            continue
        if name not in figures:
            if name != 'recovery_frames':
                text = f'{name} was {formatted(name, before)} in the baseline, but was not measured in this run'
                checks.append(Check(name, False, text, 'baseline'))
            continue
        value = figures[name]
        text = f'{name} is {formatted(name, value)}; baseline: {formatted(name, before)}, tolerance: {tolerance:g}'
        checks.append(Check(name, not is_worse(name, value, before, tolerance), text, 'baseline'))
    return checks


def rounded(figures: Figures) -> Figures:
    """Round figures to six digits, so that files can be compared."""
    return {name: round(float(value), 6) for name, value in figures.items()}


class _NoBaselineError(XMemError, ValueError):
    """File that is not JSON."""


def read_baseline(path: Path) -> dict[str, Figures]:
    """Read a baseline, or the JSON results of an earlier run: case → figures.

    Raises:
        ParameterError: the file is absent, or not a baseline.
    """
    try:
        data = read_json(path, _NoBaselineError)
        if data['version'] != VERSION:
            raise _unusable(
                f'{path}: baseline of version {quoted(data["version"])}; supported is {VERSION}', 'create it again'
            )
        return {str(name): _figures_of(case, path) for name, case in data['cases'].items()}
    except FileNotFoundError:
        raise _unusable(f'{path}: no such baseline') from None
    except OSError as error:
        raise ParameterError(f'{path}: cannot be read ({error.strerror})') from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, ParameterError):
            raise
        why = f' ({error})' if isinstance(error, _NoBaselineError) else ''
        raise _unusable(f'{path}: neither a baseline nor JSON results of this command{why}') from error


def _figures_of(case: Mapping[str, Any], path: Path) -> Figures:
    """Return a case's figures from a file; JSON results store numbers of frames separately."""
    found = {name: float(case[key]) for name, key in FRAMES.items() if key in case}
    found |= {str(key): float(value) for key, value in case['figures'].items()}
    if not all(map(math.isfinite, found.values())):
        raise _unusable(f'{path}: a figure is not finite', 'create it again')
    if unknown := [name for name in found if name.partition('.')[0] not in FIGURES]:
        raise _unusable(
            f'{path}: unknown figure {quoted(unknown[0])}; known: {", ".join(FIGURES)}',
            'use the version of xmem_ros that wrote it, or create it again',
        )
    return found


def _unusable(text: str, remedy: str = 'create it') -> XMemError:
    return naming(Setting.NEW_BASELINE, ParameterError(f'{text}; {remedy}'))


def write_baseline(path: Path, results: Sequence[Result], kept: Mapping[str, Figures]) -> list[str]:
    """Write a baseline: new figures, and the old ones of cases without new ones.

    Cases with an error or damage have no new figures. Without new figures nothing is written.

    Returns:
        Names of the cases with new figures.

    Raises:
        OutputError: the file cannot be written.
    """
    new = {result.name: rounded(result.figures) for result in results if not result.error and not result.damage}
    if not new:
        return []
    cases = {name: {'figures': figures} for name, figures in sorted({**kept, **new}.items())}
    write_file(path, json.dumps({'version': VERSION, 'cases': cases}, indent=2) + '\n')
    return list(new)


def write_json(path: Path, suite: Path, results: Sequence[Result]) -> None:
    """Write all results as JSON; raises `OutputError`."""
    states = [result.state for result in results]
    record = {
        'version': VERSION,
        'suite': str(suite),
        'met': states.count(MET),
        'unmet': states.count(UNMET),
        'errors': states.count(ERROR),
        'cases': {result.name: result.record() for result in results},
    }
    write_file(path, json.dumps(record, indent=2, ensure_ascii=False) + '\n')
