# SPDX-License-Identifier: MIT
"""Paths of memory files, confined to one folder, and their digests."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from xmem_ros.errors import MemoryFileNameError, ParameterError, quoted, summary_of

SUFFIX = '.safetensors'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,99}')


def memory_folder(parameter: str) -> Path:
    """Return the folder of the parameter `memory_folder`.

    Raises:
        ParameterError: not an absolute path, not a folder, or not usable.
    """
    if not parameter:
        home = os.environ.get('ROS_HOME') or Path.home() / '.ros'
        return Path(home) / 'xmem_ros'
    try:
        folder = Path(parameter).expanduser()
        is_no_folder = not stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        is_no_folder = False  # created with the first file
    except (OSError, RuntimeError, ValueError) as error:  # too long, or with ~ of an unknown user
        raise ParameterError(
            f'memory_folder is {quoted(parameter)}, which cannot be used ({summary_of(error):.80}); '
            'give an absolute path, or ~/…'
        ) from error
    if not folder.is_absolute():
        raise ParameterError(f'memory_folder is {quoted(parameter)}; give an absolute path, or ~/…')
    if is_no_folder:
        raise ParameterError(f'memory_folder is {quoted(parameter)}, which is not a folder; give the path of a folder')
    return folder


def memory_file(parameter: str, name: str) -> Path:
    """Return the path of a memory file in the folder.

    Raises:
        MemoryFileNameError: the name is a path, has other characters, or names a link.
        ParameterError: as for `memory_folder`.
    """
    folder = memory_folder(parameter)
    if not _NAME.fullmatch(name):
        raise MemoryFileNameError(
            f'the name {quoted(name)} cannot be used: give a plain file name of letters, digits, dots, dashes and '
            f'underscores, which begins with a letter or digit; the folder is {folder}'
        )
    path = folder / (name if name.endswith(SUFFIX) else name + SUFFIX)
    if path.is_symlink():
        raise MemoryFileNameError(f'{path} is a link; only plain files are allowed: remove it, or use another name')
    return path
