# SPDX-License-Identifier: MIT
"""Files of results."""

from pathlib import Path

from xmem_ros.evaluation.output import write_text


def write_file(path: Path, text: str) -> None:
    """Write a file that appears once it is whole; raises `OutputError` naming it, and what to do."""
    write_text(path, text, 'make room, or name another file')
