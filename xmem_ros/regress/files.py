# SPDX-License-Identifier: MIT
"""Files of results."""

import os
from collections.abc import Iterable
from pathlib import Path

from xmem_ros import atomic
from xmem_ros.errors import OutputError
from xmem_ros.evaluation.output import write_text

REMEDY = 'make room, or name another file'


def check_writable(paths: Iterable[Path]) -> None:
    """Raise `OutputError` for a file that cannot be written, before there is something to be lost."""
    for path in paths:
        try:
            atomic.check_target(path)
            there = next(folder for folder in path.absolute().parents if folder.exists())
            why = '' if there.is_dir() and os.access(there, os.W_OK) else f'{there} is no folder that can be written to'
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            raise OutputError(f'{path}: cannot be written ({why}); {REMEDY}')


def write_file(path: Path, text: str) -> None:
    """Write a file that appears once it is whole; raises `OutputError` naming it, and what to do."""
    write_text(path, text, REMEDY)
