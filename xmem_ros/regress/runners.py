# SPDX-License-Identifier: MIT
"""Runners of a case: offline in this process, or live through a node."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from xmem_ros.errors import ParameterError
from xmem_ros.regress.suite_schema import LIVE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from xmem_ros.regress.case_inputs import Run
    from xmem_ros.regress.suite import Case


def open_run(case: Case) -> AbstractContextManager[Run]:
    """Make ready to track a case; raises `XMemError`."""
    if case.runner == LIVE:
        _check_ros()
        from xmem_ros.regress.live import live_run

        return live_run(case)
    from xmem_ros.regress.offline import offline_run

    return offline_run(case)


def _check_ros() -> None:
    """Raise `ParameterError` where a node cannot be talked to."""
    for module, remedy in (
        ('rclpy', 'source the setup.bash of a ROS 2 and of the workspace with xmem_ros'),
        ('xmem_ros.msg', 'build the package (colcon build, or make build) and source its setup.bash'),
    ):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ParameterError(f'runner: live needs {module}, which is not installed here: {remedy}') from error
