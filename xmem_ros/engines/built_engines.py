# SPDX-License-Identifier: MIT
"""TensorRT engines that this user's machine built. An engine is code: one that came from elsewhere is never loaded.

Their SHA-256 are kept beside the weights, not beside the engines, so that nobody who hands on a folder of models can
vouch for the engines in it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import msgspec

from xmem_ros.engines.onnx_files import Digest, sha256_of
from xmem_ros.errors import EngineError, OutputError
from xmem_ros.weights.checkpoint import user_folder

RECORD = 'built_engines.json'
MOST_RECORD = 4 << 20  # bytes
MOST_ENGINES = 10_000

log = logging.getLogger(__name__)


def remove_unknown(cache: Path) -> None:
    """Leave in an engine cache only what was built here; TensorRT builds the rest anew.

    Raises `EngineError` for a cache that is a link or holds folders, `OutputError` where a file cannot be removed.
    """
    if cache.is_symlink():
        raise EngineError(f'{cache}: is a link, and TensorRT loads engines from there: remove it')
    if not cache.is_dir():
        return
    known = _record()
    for path in sorted(cache.iterdir()):
        try:
            if path.is_file() and not path.is_symlink() and sha256_of(path) in known:
                continue
            if path.is_dir() and not path.is_symlink():
                raise EngineError(f'{path}: is a folder among what TensorRT built: remove it')
            path.unlink()
        except OSError as error:
            raise OutputError(
                f'{path}: was not built on this machine, so that TensorRT may not load it, and cannot be removed '
                f'({error.strerror}); remove it'
            ) from error
        log.warning('%s: removed, since it was not built by this user on this machine; it is built again', path)


def note_built(cache: Path) -> None:
    """Record what an engine cache holds now; where that cannot be written, it is built again the next time."""
    built = {sha256_of(path): path.name for path in sorted(cache.iterdir()) if path.is_file() and not path.is_symlink()}
    known = _record()
    if set(built) <= set(known):
        return
    path = user_folder() / RECORD
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = dict(list({**known, **built}.items())[-MOST_ENGINES:])
        path.write_text(json.dumps(kept, indent=2) + '\n')
    except OSError as error:
        log.warning(
            '%s: cannot be written (%s); TensorRT builds again what it built, the next time: set XMEM_ROS_WEIGHTS',
            path,
            error.strerror,
        )


def _record() -> dict[str, str]:
    """SHA-256 → name; empty where it cannot be read: then everything is built again."""
    path = user_folder() / RECORD
    try:
        if path.stat().st_size > MOST_RECORD:
            raise ValueError(f'it has more than {MOST_RECORD} bytes')
        return msgspec.json.decode(path.read_bytes(), type=dict[Digest, Annotated[str, msgspec.Meta(max_length=1000)]])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        log.warning('%s: cannot be read (%s); what TensorRT built is built again', path, error)
        return {}
