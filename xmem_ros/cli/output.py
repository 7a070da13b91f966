# SPDX-License-Identifier: MIT
"""Warnings of a sub-command on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from xmem_ros.outside_text import for_terminal, say

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WARNINGS = 5  # of one kind


def warn(command: str, *kinds: Sequence[str]) -> None:
    """Print warnings to stderr, of each kind at most `MAX_WARNINGS`."""
    for texts in kinds:
        for text in texts[:MAX_WARNINGS]:
            say(f'xmem-ros {command}: warning: {for_terminal(text)}', file=sys.stderr)
        if len(texts) > MAX_WARNINGS:
            say(f'xmem-ros {command}: warning: … and {len(texts) - MAX_WARNINGS} more of this kind', file=sys.stderr)
