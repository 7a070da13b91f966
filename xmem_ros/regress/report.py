# SPDX-License-Identifier: MIT
"""HTML report of a suite: figures, failed checks and worst frames, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.evaluation.report import check_report, style
from xmem_ros.regress.figures import FIGURES, formatted
from xmem_ros.regress.files import write_file
from xmem_ros.regress.table import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.regress.results import Result


LINE = (840, 48)  # width and height of a curve, px


def write_report(path: Path, suite: str, results: Sequence[Result]) -> None:
    """Write the report.

    Raises:
        OutputError: the file cannot be written.
        ParameterError: jinja2 is not installed.
    """
    check_report()
    from jinja2 import Environment

    columns = [
        name
        for name in FIGURES
        if name not in ('object_iou', 'compared_frames') and any(name in result.figures for result in results)
    ]
    template = (Path(__file__).parent / 'report.html.j2').read_text()
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    lines = {(result.name, item.name): _line(list(item.iou.values())) for result in results for item in result.objects}
    unmet = sum(result.state != 'met' for result in results)
    write_file(
        path,
        page.render(
            suite=suite,
            results=results,
            lines=lines,
            line_size=LINE,
            columns=columns,
            unmet=unmet,
            words=WORDS,
            formatted=formatted,
            style=style(),
        ),
    )


def _line(values: Sequence[float]) -> str:
    """Return the SVG points of a curve in a box of `LINE`; values from 0 (bottom) to 1 (top)."""
    width, height = LINE
    step = width / max(len(values) - 1, 1)
    return ' '.join(f'{k * step:.1f},{1 + (1 - value) * (height - 2):.1f}' for k, value in enumerate(values))
