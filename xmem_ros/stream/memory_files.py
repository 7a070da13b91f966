# SPDX-License-Identifier: MIT
"""Where saved memories lie: files named in a service call stay inside one folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from xmem_ros.errors import MemoryFileNameError, ParameterError, quoted, told

SUFFIX = '.safetensors'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,99}')


def memory_folder(parameter: str) -> Path:
    """The folder of the parameter `memory_folder`; raises `ParameterError` where it is no folder."""
    if not parameter:
        home = os.environ.get('ROS_HOME') or Path.home() / '.ros'
        return Path(home) / 'xmem_ros'
    try:
        folder = Path(parameter).expanduser()
        in_the_way = not stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        in_the_way = False  # it is made with the first file
    except (OSError, RuntimeError, ValueError) as error:  # too long, or of a user who is not there
        raise ParameterError(
            f'memory_folder is {quoted(parameter)}, which cannot be used ({told(error):.80})'
        ) from error
    if not folder.is_absolute():
        raise ParameterError(f'memory_folder is {quoted(parameter)}; give an absolute path, or ~/…')
    if in_the_way:
        raise ParameterError(f'memory_folder is {quoted(parameter)}, which is not a folder')
    return folder


def memory_file(parameter: str, name: str) -> Path:
    """The file of a name, inside the folder; raises `MemoryFileNameError` for a path and for a link."""
    folder = memory_folder(parameter)
    if not _NAME.fullmatch(name):
        raise MemoryFileNameError(
            f'the name {quoted(name)} cannot be used: give a plain file name of letters, digits, dots, dashes and '
            f'underscores, which begins with a letter or digit; files lie in {folder}'
        )
    path = folder / (name if name.endswith(SUFFIX) else name + SUFFIX)
    if path.is_symlink():
        raise MemoryFileNameError(f'{path} is a link, and memory files are none: remove it, or use another name')
    return path
