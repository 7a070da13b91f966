# SPDX-License-Identifier: MIT
"""Make a virtual environment that holds ROS 2 from PyPI fit to build interfaces in.

The wheels' exported CMake files name the include folders of the machine that they were made on. Run with the
environment's own interpreter; running it again changes nothing.
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
    """Replace the foreign include folders below `prefix`/share; return how many files changed.

    Raises:
        FileNotFoundError: this interpreter has no C headers.
    """
    headers = Path(sysconfig.get_path('include'))
    if not (headers / 'Python.h').is_file():
        raise FileNotFoundError(
            f'{headers}/Python.h is missing, and the messages cannot be built without it: '
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
    """Fix the environment that this interpreter belongs to."""
    if sys.prefix == sys.base_prefix:
        print('setup_ros: run me with the interpreter of a virtual environment', file=sys.stderr)
        return 1
    try:
        changed = point_at_own_includes(Path(sys.prefix))
    except FileNotFoundError as error:
        print(f'setup_ros: {error}', file=sys.stderr)
        return 1
    print(f'setup_ros: {changed} CMake files now name the include folders of {sys.prefix}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
