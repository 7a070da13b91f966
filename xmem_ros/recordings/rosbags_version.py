# SPDX-License-Identifier: MIT
"""Whether rosbags is there, in a version that can be used. Needs nothing else."""

from __future__ import annotations

import functools
import importlib.metadata
import re

from xmem_ros.errors import ParameterError

# Names of its inside are used (how it tells connections and QoS), which it does not promise to keep. Say it in
# pyproject.toml, too.
ROSBAGS_FROM, ROSBAGS_BEFORE = (0, 11, 7), (0, 12)
ROSBAGS = f'rosbags>={".".join(map(str, ROSBAGS_FROM))},<{".".join(map(str, ROSBAGS_BEFORE))}'


def require_rosbags(what: object) -> None:
    """Raise `ParameterError` where rosbags cannot be used; what: that is to be read or written."""
    if trouble := rosbags_trouble():
        raise ParameterError(
            f"{what}: bags are read and written by rosbags: {trouble}: pip install 'xmem_ros[bags]', or "
            f"pip install '{ROSBAGS}'"
        )


@functools.cache
def rosbags_trouble() -> str:
    """Why rosbags cannot be used, in words; empty where it can."""
    try:
        installed = importlib.metadata.version('rosbags')
    except importlib.metadata.PackageNotFoundError:
        installed = ''
    numbers = tuple(int(part) for part in re.findall(r'\d+', re.split('[^0-9.]', installed)[0]))
    if installed and not ROSBAGS_FROM <= numbers < ROSBAGS_BEFORE:
        return f'version {installed} is installed, and {ROSBAGS} is needed'
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        if not installed:
            return 'it is not installed'
        return f'version {installed} is installed, but cannot be imported ({error})'
    return ''


def available() -> bool:
    """Whether rosbags is installed, in a version that can be used."""
    return not rosbags_trouble()
