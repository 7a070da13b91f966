# SPDX-License-Identifier: MIT
"""Choice of the runner of a case: offline in this process, or live through a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmem_ros.installation import check_installed
from xmem_ros.regress.suite_schema import LIVE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from xmem_ros.regress.case_inputs import Run
    from xmem_ros.regress.suite import Case


def open_run(case: Case) -> AbstractContextManager[Run]:
    """Prepare a case for tracking; raises `XMemError`."""
    if case.runner == LIVE:
        check_installed('runner: live')
        from xmem_ros.regress.live import live_run

        return live_run(case)
    from xmem_ros.regress.offline import offline_run

    return offline_run(case)
