# SPDX-License-Identifier: MIT
"""Progress display: a bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from tqdm import tqdm

from xmem_ros.outside_text import for_log

LINE_EVERY = 30.0  # s between lines if stderr is not a terminal; shorter tasks print no line


class Bar(tqdm):
    """tqdm's bar; prints occasional lines if the output is not a terminal.

    Arguments:
        options: options of tqdm. If the description changes with each item, pass `refresh=False`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        file = options.get('file') or sys.stderr
        if options.get('desc'):
            options['desc'] = for_log(options['desc'])
        self.by_lines = not getattr(file, 'isatty', bool)()
        if self.by_lines:
            options |= {
                'mininterval': LINE_EVERY,
                'maxinterval': 2 * LINE_EVERY,
                'delay': LINE_EVERY,
                'leave': False,  # the command prints the final state
            }
        else:
            # some containers report a terminal size of 0, for which tqdm shows nothing
            columns, rows = shutil.get_terminal_size()
            options = {'ncols': columns, 'nrows': rows, **options}
        super().__init__(*args, **options)

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Set the description as tqdm does, with untrusted text escaped."""
        super().set_description(desc and for_log(desc), refresh)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Show the state; return whether anything was shown, as tqdm does."""
        if not self.by_lines:
            return super().display(msg, pos)
        text = str(self) if msg is None else msg
        if text:
            self.fp.write(f'{text}\n')
            self.fp.flush()
        return bool(text)
