# SPDX-License-Identifier: MIT
"""Record of the TensorRT engines that this user built on this machine.

An engine is code, so one from elsewhere is never loaded. The SHA-256 digests are kept beside the
weights, not beside the engines: a copied folder of models cannot declare its own engines trusted.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import msgspec

from xmem_ros import atomic
from xmem_ros.engines.onnx_files import Digest
from xmem_ros.errors import EngineError, OutputError
from xmem_ros.weights.files import user_folder

RECORD = 'built_engines.json'
MAX_RECORD_BYTES = 4 << 20
MAX_ENGINES = 10_000

log = logging.getLogger(__name__)


def remove_unknown(cache: Path) -> None:
    """Remove engines from a cache that were not built here; TensorRT rebuilds them.

    Raises:
        EngineError: the cache is a link or contains folders.
        OutputError: a file cannot be removed.
    """
    if cache.is_symlink():
        raise EngineError(f'{cache}: is a link, but only engines that were built here are loaded: remove it')
    if not cache.is_dir():
        return
    known = _record()
    for path in sorted(cache.iterdir()):
        try:
            if path.is_file() and not path.is_symlink() and atomic.sha256_of(path) in known:
                continue
            if path.is_dir() and not path.is_symlink():
                raise EngineError(f'{path}: is a folder, but an engine cache contains only files: remove it')
            path.unlink()
        except OSError as error:
            raise OutputError(
                f'{path}: was not built on this machine and must not be loaded, but cannot be deleted '
                f'({error.strerror}): remove it'
            ) from error
        log.warning('%s: removed, because this user did not build it on this machine; TensorRT rebuilds it', path)


def note_built(cache: Path) -> None:
    """Record the content of an engine cache; without a record, TensorRT rebuilds it next time."""
    built = {
        atomic.sha256_of(path): path.name
        for path in sorted(cache.iterdir())
        if path.is_file() and not path.is_symlink()
    }
    known = _record()
    if set(built) <= set(known):
        return
    path = user_folder() / RECORD
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = dict(list({**known, **built}.items())[-MAX_ENGINES:])
        atomic.write_text(path, json.dumps(kept, indent=2) + '\n')
    except OSError as error:
        log.warning(
            '%s: cannot be written (%s), so TensorRT rebuilds its engines next time: set XMEM_ROS_WEIGHTS to a '
            'writable folder',
            path,
            error.strerror,
        )


def _record() -> dict[str, str]:
    """Read the record, SHA-256 → name; empty if unreadable, so that engines are rebuilt."""
    path = user_folder() / RECORD
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f'it has more than {MAX_RECORD_BYTES} bytes')
        return msgspec.json.decode(path.read_bytes(), type=dict[Digest, Annotated[str, msgspec.Meta(max_length=1000)]])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        log.warning('%s: cannot be read (%s); TensorRT rebuilds its engines', path, error)
        return {}
