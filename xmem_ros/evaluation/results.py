# SPDX-License-Identifier: MIT
"""Result files: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from xmem_ros import atomic
from xmem_ros.errors import OutputError
from xmem_ros.evaluation.output import write_text
from xmem_ros.evaluation.scores import MEASURES
from xmem_ros.outside_text import for_csv

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON; raises `OutputError`."""
    write_text(path, json.dumps(dict(result), indent=2) + '\n')


def write_csv(path: Path, result: Mapping[str, Any]) -> None:
    """Write one line for all objects, one for each sequence and one for each object.

    Columns: sequence (empty: all), object (empty: mean over the objects), J, F, J&F in percent,
    scored frames, frames/s.

    Raises:
        OutputError: the file cannot be written.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator='\n')
    lines.writerow(['sequence', 'object', *MEASURES, 'frames', 'fps'])
    frames = sum(scores['frames'] for scores in result['sequences'].values())
    lines.writerow(['', '', *(_figure(result[key]) for key in MEASURES), frames, _figure(result['fps'])])
    for name, scores in result['sequences'].items():
        rate = _figure(scores['fps'])
        name = for_csv(name)
        lines.writerow([name, '', *(_figure(scores[key]) for key in MEASURES), scores['frames'], rate])
        for value, one in scores['objects'].items():
            lines.writerow([name, value, *(_figure(one[key]) for key in MEASURES), scores['frames'], rate])
    write_text(path, text.getvalue())


def check_writable(*paths: Path | None) -> None:
    """Create the folders of files; raises `OutputError` for a file that cannot be written."""
    for path in paths:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.check_target(path)
        except OSError as error:
            raise OutputError(f'{path}: cannot be written ({error.strerror}); choose another file') from error


def _figure(value: float | None) -> str:
    return '' if value is None else f'{value:.4f}'
