# SPDX-License-Identifier: MIT
"""Table of the figures that a case is measured by: limits, tolerances, descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Figures = dict[str, float]
"""Name → value; `object_iou` has one entry for each object, `object_iou.NAME`."""

CORRECT_IOU = 0.5
"""IoU above which a mask is correct. Above one half, a mask matches at most one other."""
LOST_AFTER = 10  # an object without a correct mask in its last 10 visible frames is lost


@dataclass(frozen=True)
class Figure:
    """Definition of a figure.

    Attributes:
        description: for docs/regress.md.
        unit: as printed; empty for ratios and counts.
        more_is_better: whether larger values are better.
        high: maximum limit that can be expected; the minimum is 0.
        whole: whether it is a count.
        live_only: whether only live runs measure it.
        tolerance: allowed loss against the baseline; None: not compared by default.
    """

    description: str
    unit: str = ''
    more_is_better: bool = False
    high: float = 1e9
    whole: bool = False
    live_only: bool = False
    tolerance: float | None = None

    def fault(self, value: object) -> str:
        """Return why a value cannot be a limit of this figure; '' if it can."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= self.high:  # type: ignore[operator]
            return f'it must be a number {f"from 0 to {self.high:g}" if self.high < 1e9 else "of 0 or more"}'
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
        'maximum number of frames with a wrong mask after an absent object returns in the reference, until it is '
        'correct, gone again, or the recording ends; 0: correct at once',
        'frames',
        whole=True,
        tolerance=2.0,
    ),
    'lost_objects': Figure(
        f'objects that were never matched, or are correct in none of the last {LOST_AFTER} frames that show them',
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
"""All figures, in the order of the output."""


def figure_of(name: str) -> Figure:
    """Return the figure of a name, with or without an object."""
    return FIGURES[name.partition('.')[0]]


def formatted(name: str, value: float) -> str:
    """Format a value with its unit."""
    figure = figure_of(name)
    if figure.whole:
        text = f'{value:.10g}'
    else:
        text = f'{value:.3f}' if figure.high <= 1 else f'{value:.1f}'
    unit = figure.unit.removesuffix('s') if figure.unit == 'frames' and value == 1 else figure.unit
    return f'{text} {unit}'.rstrip()


def is_worse(name: str, value: float, limit: float, tolerance: float = 0.0) -> bool:
    """Whether a value is worse than a limit by more than a tolerance, except for rounding."""
    loss = limit - value if figure_of(name).more_is_better else value - limit
    return loss > tolerance + 1e-9


def flat(expected: Mapping[str, object]) -> Figures:
    """Flatten limits or tolerances: `object_iou` with names becomes one entry for each object."""
    found: Figures = {}
    for name, value in expected.items():
        if isinstance(value, Mapping):
            found |= {f'{name}.{key}': float(one) for key, one in value.items()}
        else:
            found[name] = float(value)  # type: ignore[arg-type]
    return found
