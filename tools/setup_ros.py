# SPDX-License-Identifier: MIT
"""Prepare a virtual environment with ROS 2 from PyPI for building interfaces.

The wheels' CMake files contain include folders of the build machine. Run this with the
environment's interpreter; repeated runs change nothing.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy

PYTHON_INCLUDE = re.compile(r'/opt/python/cp[^/;"]+/include/python3\.\d+')
NUMPY_INCLUDE = re.compile(r'/opt/python/cp[^/;"]+/lib/python3\.\d+/site-packages/numpy/(?:_core|core)/include')


def point_at_own_includes(prefix: Path) -> int:
    """Replace foreign include folders below `prefix`/share; return the number of changed files.

    Raises:
        FileNotFoundError: the C headers of this interpreter are missing.
    """
    headers = Path(sysconfig.get_path('include'))
    if not (headers / 'Python.h').is_file():
        raise FileNotFoundError(
            f'{headers}/Python.h is missing, which building the messages needs: '
            'install the headers of this Python (Debian and Ubuntu: apt install python3-dev)'
        )
    changed = 0
    for path in sorted(prefix.glob('share/*/cmake/*.cmake')):
        text = path.read_text()
        ours = NUMPY_INCLUDE.sub(numpy.get_include(), PYTHON_INCLUDE.sub(str(headers), text))
        if ours != text:
            path.write_text(ours)
            changed += 1
    return changed


def main() -> int:
    """Prepare the environment of this interpreter; returns the exit code."""
    if sys.prefix == sys.base_prefix:
        print('setup_ros: not a virtual environment: run this with the interpreter of one', file=sys.stderr)
        return 1
    try:
        changed = point_at_own_includes(Path(sys.prefix))
    except FileNotFoundError as error:
        print(f'setup_ros: {error}', file=sys.stderr)
        return 1
    print(f'setup_ros: {changed} CMake files updated to the include folders of {sys.prefix}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
