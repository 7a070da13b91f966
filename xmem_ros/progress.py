# SPDX-License-Identifier: MIT
"""Progress of what takes long: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from tqdm import tqdm

from xmem_ros.outside_text import for_log

LINE_EVERY = 30.0  # s between lines where stderr is no terminal; what takes less says nothing


class Bar(tqdm):
    """tqdm's bar, which in a file or a pipe would be one long line of all its states.

    Arguments:
        options: of tqdm. Whoever sets a description for each part gives `refresh=False`, which is heeded elsewhere.
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
                'leave': False,  # the last state is the command's to tell
            }
        else:
            # a terminal may say that its size is 0, as in some containers, and tqdm would show nothing
            columns, rows = shutil.get_terminal_size()
            options = {'ncols': columns, 'nrows': rows, **options}
        super().__init__(*args, **options)

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Say what is being done; as tqdm's own, but a name from outside drives no terminal."""
        super().set_description(desc and for_log(desc), refresh)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Show the state; as tqdm's own, whether something was shown."""
        if not self.by_lines:
            return super().display(msg, pos)
        text = str(self) if msg is None else msg
        if text:
            self.fp.write(f'{text}\n')
            self.fp.flush()
        return bool(text)
