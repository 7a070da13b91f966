# SPDX-License-Identifier: MIT
"""Fetch the official weights into the user's cache, and see that what lies there is what was fetched first.

A lock file beside them pins each file's size and, once it has been fetched and read, its SHA-256.
"""

from __future__ import annotations

import hashlib
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
from xmem_ros.weights.checkpoint import load_network, user_folder
from xmem_ros.weights.download import download
from xmem_ros.weights.official import OFFICIAL, RELEASE, OfficialWeights, official_name

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

LOCK = 'weights.lock.json'
MIRROR = 'XMEM_ROS_WEIGHTS_URL'  # of a folder to fetch from instead of the release page


def fetch(name: str, *, progress: bool = True) -> Path:
    """Bring official weights into the cache, unless they are there; returns the file.

    Raises:
        WeightsError: the name is not known, there is no network (the text says what to download and where to put it),
            or what came is not what it should be.
        OutputError: the cache cannot be written.
    """
    weights = known(name)
    folder = user_folder()
    target, lock = folder / weights.file, read_lock()
    if target.is_file():
        with suppress(OutputError):  # a cache that can only be read serves, too
            check(weights, target, lock)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f'{folder}: cannot be made ({error.strerror or error}); set XMEM_ROS_WEIGHTS') from error
    part = target.with_name(f'{target.name}.part')
    try:
        known_size = lock.get(weights.file, {}).get('bytes')
        download(source(weights), part, most=weights.most_bytes, size=known_size, progress=progress)
    except WeightsError as error:
        kept = part.is_file() and part.stat().st_size > 0
        raise WeightsError(
            f'{error}. Download {weights.file} from {RELEASE} in another way and put it into {folder}'
            + ('; what has come so far is kept, and the same command goes on from there' if kept else '')
        ) from error
    check(weights, part, lock, remove=True)
    part.replace(target)
    if 'sha256' not in lock.get(weights.file, {}):
        log.warning(
            '%s: fetched for the first time%s. Its authors publish no checksum, so this one is taken on trust: SHA-256 '
            '%s. It is pinned in %s, and what is fetched later has to match it',
            weights.file,
            ', without encryption' if source(weights).startswith('http://') else '',
            sha256(target),
            folder / LOCK,
        )
    return target


def known(name: str) -> OfficialWeights:
    """The released file of a name; raises `WeightsError`."""
    official = official_name(name)
    if official is None:
        raise WeightsError(f'{name!r} is none of the official weights; there is {", ".join(OFFICIAL)}, or all')
    return OFFICIAL[official]


def source(weights: OfficialWeights) -> str:
    """Where a file is fetched from: the release page, or a mirror that the user names."""
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return weights.url
    try:
        found = urlsplit(mirror)
        usable = bool(found.scheme) and mirror.isascii() and mirror.isprintable() and ' ' not in mirror
        usable = usable and found.port != 0  # reading the port raises an error where it is none
    except ValueError:
        usable = False
    if not usable:
        raise WeightsError(f'{MIRROR} is {quoted(mirror)}; give the address of a folder, as in https://host/weights')
    return f'{mirror.rstrip("/")}/{weights.file}'


def check(
    weights: OfficialWeights, path: Path, lock: dict[str, Any], *, remove: bool = False, pin: bool = True
) -> None:
    """See that a file is what the lock says; one that it does not know is read as a network.

    Arguments:
        weights: what it should be.
        path: of the file.
        lock: as `read_lock` has it.
        remove: a file that is wrong is removed.
        pin: what the lock does not know is added to its file.

    Raises:
        WeightsError: the file is wrong.
        OutputError: it is not, and the lock file cannot be written.
    """
    pinned = lock.get(weights.file)
    if path.stat().st_size > weights.most_bytes:
        raise WeightsError(f'{path}: not {weights.file}, it has {path.stat().st_size} bytes; remove it')
    found: dict[str, Any] = {'bytes': path.stat().st_size, 'sha256': sha256(path)}
    try:
        if pinned and any(pinned.get(key, found[key]) != found[key] for key in found):
            raise WeightsError(
                f'{path}: not the {weights.file} that was fetched first: {found["bytes"]} bytes, SHA-256 '
                f'{found["sha256"][:12]}…, and {user_folder() / LOCK} says {pinned.get("bytes")} bytes, '
                f'{str(pinned.get("sha256"))[:12]}…; fetch it again, or, where the authors changed it, remove it from '
                'that file'
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
    """File → its pinned size and checksum; raises `WeightsError` where the lock file is damaged."""
    path = user_folder() / LOCK
    try:
        lock = read_json(path, WeightsError)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, WeightsError) as error:
        raise WeightsError(f'{path}: not readable ({error}); remove it') from error
    if not isinstance(lock, dict) or not all(map(_is_pin, lock.values())):
        raise WeightsError(f'{path}: not readable (it does not say of each file what it is); remove it')
    return lock


def _is_pin(given: Any) -> bool:
    return (
        isinstance(given, dict)
        and isinstance(given.get('bytes', 1), int)
        and isinstance(given.get('sha256', ''), str)
        and given.get('bytes', 1) > 0
    )


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _pin(weights: OfficialWeights, found: dict[str, Any]) -> None:
    path = user_folder() / LOCK
    try:
        locked = {**read_lock(), weights.file: {'url': without_secrets(source(weights)), **found}}
        atomic.write_text(path, json.dumps(locked, indent=2) + '\n')
    except OSError as error:
        raise OutputError(f'{path}: cannot be written ({error.strerror or error})') from error
