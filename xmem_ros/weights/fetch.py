# SPDX-License-Identifier: MIT
"""Download of the official weights into the user's cache, with pinned checksums.

A lock file in the cache pins each file's size and, after the first download, its SHA-256.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xmem_ros import atomic
from xmem_ros.data_files import read_json
from xmem_ros.errors import OutputError, WeightsError, quoted
from xmem_ros.outside_text import without_secrets
from xmem_ros.weights.checkpoint import load_network
from xmem_ros.weights.download import download
from xmem_ros.weights.files import user_folder
from xmem_ros.weights.official import OFFICIAL, RELEASE, OfficialWeights, official_name

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

LOCK = 'weights.lock.json'
MIRROR = 'XMEM_ROS_WEIGHTS_URL'  # environment variable: address of a folder to use instead of the release


def fetch(name: str, *, progress: bool = True) -> Path:
    """Download official weights into the cache unless they are already there; returns the file.

    Raises:
        WeightsError: an unknown name, a failed download (the text says which file to download by
            hand, and where to put it), or a wrong file.
        OutputError: the cache cannot be written.
    """
    weights = known(name)
    folder = user_folder()
    target, lock = folder / weights.file, read_lock()
    if target.is_file():
        with suppress(OutputError):  # a read-only cache is fine
            check(weights, target, lock)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f'{folder}: cannot be created ({error.strerror or error}); set XMEM_ROS_WEIGHTS to another folder'
        ) from error
    part = target.with_name(f'{target.name}.part')
    try:
        known_size = lock.get(weights.file, {}).get('bytes')
        download(source(weights), part, most=weights.most_bytes, size=known_size, progress=progress)
    except WeightsError as error:
        kept = part.is_file() and part.stat().st_size > 0
        raise WeightsError(
            f'{error}. Try again, or download {weights.file} by hand from {RELEASE} and put it into {folder}'
            + ('; the same command resumes the partial download' if kept else '')
        ) from error
    check(weights, part, lock, remove=True)
    part.replace(target)
    if 'sha256' not in lock.get(weights.file, {}):
        log.warning(
            '%s: downloaded for the first time%s. Its authors publish no checksum, so this file is taken on trust. Its '
            'SHA-256 %s is pinned in %s, and later downloads must match it',
            weights.file,
            ', without encryption' if source(weights).startswith('http://') else '',
            atomic.sha256_of(target),
            folder / LOCK,
        )
    return target


def known(name: str) -> OfficialWeights:
    """Return the released file of a name; raises `WeightsError` for an unknown name."""
    official = official_name(name)
    if official is None:
        raise WeightsError(f'unknown official weights {name!r}: give {", ".join(OFFICIAL)}, or all')
    return OFFICIAL[official]


def source(weights: OfficialWeights) -> str:
    """Return the address of a file, on the release page or on the mirror that `MIRROR` names."""
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return weights.url
    try:
        found = urlsplit(mirror)
        usable = bool(found.scheme) and mirror.isascii() and mirror.isprintable() and ' ' not in mirror
        usable = usable and found.port != 0  # raises an error for an invalid port
    except ValueError:
        usable = False
    if not usable:
        raise WeightsError(f'{MIRROR} is {quoted(mirror)}: give the address of a folder, as in https://host/weights')
    return f'{mirror.rstrip("/")}/{weights.file}'


def check(
    weights: OfficialWeights, path: Path, lock: dict[str, Any], *, remove: bool = False, pin: bool = True
) -> None:
    """Check a file against the lock; an unpinned file is read as a network instead.

    Arguments:
        weights: the expected released file.
        path: file to check.
        lock: result of `read_lock`.
        remove: remove a wrong file.
        pin: add an unpinned file to the lock file.

    Raises:
        WeightsError: the file is wrong.
        OutputError: the lock file cannot be written.
    """
    pinned = lock.get(weights.file)
    if path.stat().st_size > weights.most_bytes:
        raise WeightsError(f'{path}: too large for {weights.file} ({path.stat().st_size} bytes); remove it')
    found: dict[str, Any] = {'bytes': path.stat().st_size, 'sha256': atomic.sha256_of(path)}
    try:
        if pinned and any(pinned.get(key, found[key]) != found[key] for key in found):
            raise WeightsError(
                f'{path}: differs from the first download of {weights.file}: {found["bytes"]} bytes, SHA-256 '
                f'{found["sha256"][:12]}…; {user_folder() / LOCK} pins {pinned.get("bytes")} bytes, '
                f'{str(pinned.get("sha256"))[:12]}…. Download it again, or, if the authors changed it, remove its '
                'entry there'
            )
        if not pinned or 'sha256' not in pinned:
            load_network(path)
    except WeightsError:
        if remove:
            path.unlink(missing_ok=True)
        raise
    if pin and (not pinned or 'sha256' not in pinned):
        _pin(weights, found)


def read_lock() -> dict[str, Any]:
    """Read the lock: file → pinned size and checksum; raises `WeightsError` if damaged."""
    path = user_folder() / LOCK
    try:
        lock = read_json(path, WeightsError)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, WeightsError) as error:
        raise WeightsError(f'{path}: cannot be read ({error}); remove it') from error
    if not isinstance(lock, dict) or not all(map(_is_pin, lock.values())):
        raise WeightsError(f'{path}: not a lock file of weights; remove it')
    return lock


def _is_pin(given: Any) -> bool:
    return (
        isinstance(given, dict)
        and isinstance(given.get('bytes', 1), int)
        and isinstance(given.get('sha256', ''), str)
        and given.get('bytes', 1) > 0
    )


def _pin(weights: OfficialWeights, found: dict[str, Any]) -> None:
    path = user_folder() / LOCK
    try:
        locked = {**read_lock(), weights.file: {'url': without_secrets(source(weights)), **found}}
        atomic.write_text(path, json.dumps(locked, indent=2) + '\n')
    except OSError as error:
        raise OutputError(
            f'{path}: cannot be written ({error.strerror or error}); set XMEM_ROS_WEIGHTS to another folder'
        ) from error
