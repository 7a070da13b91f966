# SPDX-License-Identifier: MIT
"""Bars, tables and JSON of the robustness trials."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmem_ros.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Bar:
    """Upper bound of a figure."""

    name: str
    value: float
    most: float = 0.0

    @property
    def met(self) -> bool:
        """Whether the figure meets the bar."""
        return self.value <= self.most

    def __str__(self) -> str:
        return f'{"met   " if self.met else "MISSED"} {self.name}: {self.value:.4g} (at most {self.most:g})'


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format columns, the first left-aligned, the others right-aligned."""
    lines = [list(map(str, head)), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return '\n'.join(
        '  '.join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def finish(result: dict[str, Any], bars: Sequence[Bar], path: Path | None) -> int:
    """Print the bars and write the JSON; returns the exit code, 1 if a bar is missed."""
    result['bars'] = {bar.name: {'value': bar.value, 'at_most': bar.most, 'met': bar.met} for bar in bars}
    for bar in bars:
        print(bar)
    if path:
        write_text(path, json.dumps(result, indent=1) + '\n')
    return 0 if all(bar.met for bar in bars) else 1


def _cell(value: Any) -> str:
    return '–' if value is None else f'{value:.2f}' if isinstance(value, float) else str(value)
