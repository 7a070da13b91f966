# SPDX-License-Identifier: MIT
"""Check of the installed rosbags version. Imports nothing else."""

from __future__ import annotations

import functools
import importlib.metadata
import re

from xmem_ros.errors import ParameterError

# xmem_ros uses internal types of rosbags (connections, QoS), which any minor version may change.
# pyproject.toml has the same bounds.
ROSBAGS_FROM, ROSBAGS_BEFORE = (0, 11, 7), (0, 12)
ROSBAGS = f'rosbags>={".".join(map(str, ROSBAGS_FROM))},<{".".join(map(str, ROSBAGS_BEFORE))}'


def require_rosbags(what: object) -> None:
    """Raise `ParameterError` if rosbags cannot be used; what: the bag or results that need it."""
    if trouble := rosbags_trouble():
        raise ParameterError(f"{what}: bags need the package rosbags: {trouble}; pip install '{ROSBAGS}'")


@functools.cache
def rosbags_trouble() -> str:
    """Return why rosbags cannot be used; '' if it can."""
    try:
        installed = importlib.metadata.version('rosbags')
    except importlib.metadata.PackageNotFoundError:
        installed = ''
    numbers = tuple(int(part) for part in re.findall(r'\d+', re.split('[^0-9.]', installed)[0]))
    if installed and not ROSBAGS_FROM <= numbers < ROSBAGS_BEFORE:
        return f'version {installed} is installed, but {ROSBAGS} is required'
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        if not installed:
            return 'it is not installed'
        return f'version {installed} is installed, but cannot be imported ({error})'
    return ''


def available() -> bool:
    """Return whether rosbags is installed in a supported version."""
    return not rosbags_trouble()
