# SPDX-License-Identifier: MIT
"""The figures that a case gives, as one table: expectations, tolerances, comparison and documentation come from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Figures = dict[str, float]
"""Name → value; `object_iou` is there once for each object, as `object_iou.NAME`."""

RIGHT_IOU = 0.5
"""Above it two masks are the same thing. No mask can be more than half of two others at once, so matches are unique."""
LOST_AFTER = 10  # of the last frames that show an object: right in none of them, it is lost


@dataclass(frozen=True)
class Figure:
    """What one figure is.

    Attributes:
        what: in words.
        unit: as printed; empty for shares and counts.
        more_is_better: else less is.
        high: of what can be expected of it; `low` is 0.
        whole: it is a count.
        live_only: it cannot be had offline.
        tolerance: by how much it may be worse than the baseline; None: not compared unless the suite says how.
    """

    what: str
    unit: str = ''
    more_is_better: bool = False
    high: float = 1e9
    whole: bool = False
    live_only: bool = False
    tolerance: float | None = None

    def fault(self, value: object) -> str:
        """Why a value cannot be expected of it; empty where it can."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= self.high:  # type: ignore[operator]
            return f'allowed: a number from 0{f" to {self.high:g}" if self.high < 1e9 else " on"}'
        return ''


FIGURES: dict[str, Figure] = {
    'mean_iou': Figure('mean of `object_iou` over the objects', more_is_better=True, high=1.0, tolerance=0.01),
    'object_iou': Figure(
        'mean IoU with the reference over frames, for each object by name',
        more_is_better=True,
        high=1.0,
        tolerance=0.02,
    ),
    'id_switches': Figure(
        'changes of the id that matches a reference object',
        whole=True,
        tolerance=0.0,
    ),
    'recovery_frames': Figure(
        'after an absence from the reference: the maximum number of frames that show the object before it is '
        'right again, gone again, or the recording ends; 0: right at once',
        'frames',
        whole=True,
        tolerance=2.0,
    ),
    'lost_objects': Figure(
        f'objects never matched, or right in none of the last {LOST_AFTER} frames that show them',
        whole=True,
        tolerance=0.0,
    ),
    'missing_frames': Figure('frames without a result', 'frames', whole=True, tolerance=0.0),
    'tracked_frames': Figure('frames with a result', 'frames', more_is_better=True, whole=True, tolerance=0.0),
    'compared_frames': Figure(
        'frames with a result and a reference mask', 'frames', more_is_better=True, whole=True, tolerance=0.0
    ),
    'memory_mb': Figure("maximum size of the tracker's stores, as in the diagnostics", 'MB'),
    'processing_ms': Figure('95th percentile of the time from taking an image to its labels', 'ms', live_only=True),
    'age_ms': Figure('95th percentile of the time from sending an image to its result', 'ms', live_only=True),
    'process_mb': Figure(
        'maximum resident memory of the process of the node; only if the suite starts it',
        'MB',
        live_only=True,
    ),
}
"""What can be expected, in the order in which it is printed."""


def figure_of(name: str) -> Figure:
    """The figure that a name stands for, with or without an object."""
    return FIGURES[name.partition('.')[0]]


def written(name: str, value: float) -> str:
    """A value as people read it."""
    figure = figure_of(name)
    if figure.whole:
        text = f'{value:.10g}'
    else:
        text = f'{value:.3f}' if figure.high <= 1 else f'{value:.1f}'
    unit = figure.unit.removesuffix('s') if figure.unit == 'frames' and value == 1 else figure.unit
    return f'{text} {unit}'.rstrip()


def is_worse(name: str, value: float, limit: float, tolerance: float = 0.0) -> bool:
    """Whether a value is on the wrong side of a limit by more than a tolerance; rounding is forgiven."""
    by = limit - value if figure_of(name).more_is_better else value - limit
    return by > tolerance + 1e-9


def flat(expected: Mapping[str, object]) -> Figures:
    """What is expected or tolerated, with `object_iou` taken apart into its objects."""
    found: Figures = {}
    for name, value in expected.items():
        if isinstance(value, Mapping):
            found |= {f'{name}.{key}': float(one) for key, one in value.items()}
        else:
            found[name] = float(value)  # type: ignore[arg-type]
    return found
