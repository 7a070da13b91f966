# SPDX-License-Identifier: MIT
"""Table of results, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from xmem_ros.outside_text import for_log
from xmem_ros.regress.figures import FIGURES, formatted
from xmem_ros.regress.results import ERROR, MET, UNMET, Result

WORDS = {MET: 'ok', UNMET: 'FAILED', ERROR: 'ERROR'}
# objects have separate rows, and frames a column
_SHOWN = [name for name in FIGURES if name not in ('object_iou', 'tracked_frames', 'compared_frames')]


def table(results: Sequence[Result]) -> str:
    """Format a row for each case, rows for its objects if several, failed checks and notes."""
    columns = [name for name in _SHOWN if any(name in result.figures for result in results)]
    rows = [['case', '', 'frames', *(_heading(name) for name in columns)]]
    for result in results:
        figures = [_cell(name, result.figures) for name in columns]
        rows.append([for_log(result.name), WORDS[result.state], _frames(result), *figures])
        if len(result.objects) > 1:
            for item in result.objects:
                own = {'mean_iou': item.mean, 'id_switches': item.switches, 'lost_objects': item.lost}
                if item.recovery is not None:
                    own['recovery_frames'] = item.recovery
                figures = [_cell(name, own) for name in columns]
                rows.append([f'  {for_log(item.name)}', '', str(len(item.iou)), *figures])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append('  '.join(cells).rstrip())
    for result in results:
        lines += [f'{for_log(result.name)}: {for_log(text)}' for text in (*result.faults, *result.notes)]
    return '\n'.join(lines)


def _frames(result: Result) -> str:
    """Return the number of compared frames, and of all frames if larger."""
    return str(result.compared) if result.compared == result.frames else f'{result.compared} of {result.frames}'


def _heading(name: str) -> str:
    return name.replace('_', ' ')


def _cell(name: str, figures: dict[str, float]) -> str:
    return formatted(name, figures[name]).partition(' ')[0] if name in figures else '-'
