# SPDX-License-Identifier: MIT
"""Writing of result files."""

import os
from collections.abc import Iterable
from pathlib import Path

from xmem_ros import atomic
from xmem_ros.errors import OutputError
from xmem_ros.evaluation.output import write_text

REMEDY = 'free some space, or name another file'


def check_writable(paths: Iterable[Path]) -> None:
    """Raise `OutputError` for a file that cannot be written, before the cases run."""
    for path in paths:
        try:
            atomic.check_target(path)
            folder = next(folder for folder in path.absolute().parents if folder.exists())
            why = '' if folder.is_dir() and os.access(folder, os.W_OK) else f'{folder} is not a writable folder'
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            raise OutputError(f'{path}: cannot be written ({why}); {REMEDY}')


def write_file(path: Path, text: str) -> None:
    """Write a file atomically; raises `OutputError` with its name."""
    write_text(path, text, REMEDY)
