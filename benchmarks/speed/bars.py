# SPDX-License-Identifier: MIT
"""Speed requirements: each row of `python -m speed` is compared with its bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """Lower or upper bound of a figure, for rows with these values."""

    machine: str  # part of the device's name
    model: str
    size: int  # px
    objects: int
    precision: str  # float32 or reduced
    figure: str  # key of a row
    bound: float
    most: bool = False  # whether the bound is an upper one
    fullness: str = 'evicting'

    def __str__(self) -> str:
        sign = '≤' if self.most else '≥'
        return (
            f'{self.model} {self.size} px, {self.objects} object(s), {self.precision}, {self.fullness}: '
            f'{self.figure} {sign} {self.bound:g}'
        )

    def applies_to(self, row: dict[str, Any]) -> bool:
        """Whether the bar applies to a row."""
        keys = ('model', 'size', 'objects', 'fullness')
        return all(row[key] == getattr(self, key) for key in keys) and row['kind'] == self.precision

    def met(self, row: dict[str, Any]) -> bool:
        """Whether a row meets the bar."""
        value = row[self.figure]
        return value <= self.bound if self.most else value >= self.bound


BARS = (
    Bar('cpu', 'xmem', 480, 1, 'float32', 'ratio', 1.4),
    Bar('cpu', 'xmem', 480, 1, 'reduced', 'ratio', 2.5),
    Bar('cpu', 'xmem', 480, 5, 'float32', 'ratio', 1.6),
    Bar('cpu', 'xmem', 480, 5, 'reduced', 'ratio', 2.8),
    Bar('cpu', 'compact', 240, 1, 'reduced', 'fps', 20.0),
    Bar('H200', 'xmem', 480, 1, 'reduced', 'ratio', 4.0),
    Bar('H200', 'xmem', 480, 5, 'reduced', 'ratio', 4.0),
    Bar('H200', 'xmem', 480, 1, 'reduced', 'peak_of_reference', 0.5, most=True),
    Bar('H200', 'compact', 480, 1, 'reduced', 'fps', 400.0),
)


def judge(rows: list[dict[str, Any]], machine: str) -> tuple[list[str], bool]:
    """Return a line for every bar, and whether all applicable bars are met."""
    lines, good = [], True
    for bar in BARS:
        if bar.machine not in machine:
            lines.append(f'skipped  {bar}: for {bar.machine}, this is {machine}')
            continue
        row = next((row for row in rows if bar.applies_to(row)), None)
        if row is None or row.get(bar.figure) is None:
            why = 'no such case in this run' if row is None else 'no reference in this run'
            lines.append(f'skipped  {bar}: {why}')
            continue
        met = bar.met(row)
        good &= met
        lines.append(f'{"met" if met else "MISSED":8} {bar}: {row[bar.figure]:.2f}')
    return lines, good
