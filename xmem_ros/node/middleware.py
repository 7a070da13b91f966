# SPDX-License-Identifier: MIT
"""Environment of the middleware, for launch files. No ROS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
"""Names of one setting: Fast DDS 3 (Kilted and later) knows the first, Fast DDS 2 the second."""

_OF_THE_USER = (*PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')
_WITH_FAST_DDS_2 = ('humble', 'iron', 'jazzy')


def profile_environment(share: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that make Fast DDS use config/fastdds.xml.

    Empty if the user has chosen a profile or transports, even by an empty value. Other middleware
    ignores them.

    Args:
        share: share folder of the package.
        environment: of this process.
    """
    if any(name in environment for name in _OF_THE_USER):
        return {}
    # Kilted's rmw_fastrtps reads the file of the second name, too: a second time, with errors.
    known = PROFILE_VARIABLES if environment.get('ROS_DISTRO') in _WITH_FAST_DDS_2 else PROFILE_VARIABLES[:1]
    return dict.fromkeys(known, str(share / 'config' / 'fastdds.xml'))
