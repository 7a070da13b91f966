# SPDX-License-Identifier: MIT
"""Optional modules that a command requires: ROS, aiohttp."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from xmem_ros.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterable

ROS = (
    ('rclpy', 'source the setup.bash of a ROS 2 installation, then that of the workspace with xmem_ros'),
    ('xmem_ros.msg', 'build the package (colcon build, or make build) and source its setup.bash'),
)
"""Modules for communication with a node, each with a remedy."""


def check_installed(purpose: str, modules: Iterable[tuple[str, str]] = ROS) -> None:
    """Raise `ParameterError` for the first module that cannot be imported.

    Arguments:
        purpose: name of the command or page that needs them, for the error.
        modules: names, each with a remedy.
    """
    for module, remedy in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ParameterError(f'{purpose} needs {module}, which is not installed here: {remedy}') from error
