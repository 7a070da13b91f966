# SPDX-License-Identifier: MIT
"""Where saved memories lie: files named in a service call stay inside one folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from xmem_ros.errors import MemoryFileError, ParameterError, quoted

SUFFIX = '.safetensors'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,99}')


def memory_folder(parameter: str) -> Path:
    """The folder of the parameter `memory_folder`; raises `ParameterError` where it is no folder."""
    if not parameter:
        home = os.environ.get('ROS_HOME') or Path.home() / '.ros'
        return Path(home) / 'xmem_ros'
    folder = Path(parameter).expanduser()
    if not folder.is_absolute():
        raise ParameterError(f'memory_folder is {parameter!r}; give an absolute path, or ~/…')
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f'memory_folder is {parameter!r}, which is not a folder')
    return folder


def memory_file(parameter: str, name: str) -> Path:
    """The file of a name, inside the folder; raises `MemoryFileError` for a name that is or leads elsewhere."""
    folder = memory_folder(parameter)
    if not _NAME.fullmatch(name):
        raise MemoryFileError(
            f'the name {quoted(name)} cannot be used: give a plain file name of letters, digits, dots, dashes and '
            f'underscores, which begins with a letter or digit; files lie in {folder}'
        )
    path = folder / (name if name.endswith(SUFFIX) else name + SUFFIX)
    if path.is_symlink() and path.resolve().parent != folder.resolve():
        raise MemoryFileError(f'{path} is a link that leads out of {folder}: remove it, or use another name')
    return path
