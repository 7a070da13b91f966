# SPDX-License-Identifier: MIT
"""Exported ONNX models on disk: one folder per combination of weights, size and precision."""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from xmem_ros import atomic, work_folder
from xmem_ros.data_files import read_json
from xmem_ros.errors import EngineError
from xmem_ros.weights.files import user_folder

FORMAT = 1  # version of the models' inputs and outputs, part of the folder's name
MANIFEST = 'manifest.json'
TRACKER, COMMAND = 'tracker', 'xmem-ros export'  # origins of an export

MAX_MANIFEST_BYTES = 1 << 20
Digest = Annotated[str, msgspec.Meta(pattern='^[0-9a-f]{64}$')]

log = logging.getLogger(__name__)


class ModelFile(msgspec.Struct, frozen=True):
    """Manifest entry of a model; unknown keys are ignored."""

    file: str
    bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
    sha256: Digest


class Manifest(msgspec.Struct, frozen=True):
    """Manifest of a folder of models; unknown keys are ignored."""

    format: int
    weights: Digest
    height: Annotated[int, msgspec.Meta(ge=16, le=65_536)]
    width: Annotated[int, msgspec.Meta(ge=16, le=65_536)]
    precision: str
    objects: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=254)]], msgspec.Meta(min_length=1, max_length=254)]
    models: Annotated[dict[str, ModelFile], msgspec.Meta(min_length=1, max_length=16)]


@dataclass(frozen=True)
class ExportKey:
    """Key of exported models: they fit one combination of weights, size and precision."""

    weights: str  # fingerprint of the weights
    height: int  # px of the network's input, a multiple of 16
    width: int
    precision: str  # float32 or float16

    @property
    def folder(self) -> str:
        """Name of the models' folder."""
        return f'{self.weights[:16]}-{self.height}x{self.width}-{self.precision}-{FORMAT}'

    def described(self) -> dict[str, Any]:
        """Entries of the manifest."""
        return {
            'format': FORMAT,
            'weights': self.weights,
            'height': self.height,
            'width': self.width,
            'precision': self.precision,
        }


def models_folder() -> Path:
    """Return the folder of exported models: $XMEM_ROS_ONNX, or in the user's cache."""
    return Path(os.environ.get('XMEM_ROS_ONNX') or user_folder() / 'onnx')


def find_models(key: ExportKey) -> Path | None:
    """Find exported models; None if there are none, or damaged ones that may be re-exported.

    Raises:
        EngineError: damaged models that a user exported with the command.
    """
    folder = models_folder() / key.folder
    if not folder.is_dir():
        return None
    problem = find_damage(folder, key)
    if not problem:
        return folder
    if _exported_by(folder) == COMMAND:
        raise EngineError(
            f'{folder}: {problem}; it was made by `{COMMAND}`: repeat that command, copy the folder again if it was '
            'made on another machine, or remove it to have the models exported here'
        )
    log.warning('%s: %s; exporting the models again', folder, problem)
    return None


def find_damage(folder: Path, key: ExportKey) -> str:
    """Check exported models byte by byte; returns the damage, '' if intact."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return f'{MANIFEST} is missing'
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f'{MANIFEST} cannot be read ({type(error).__name__}: {error})'
    if {name: getattr(manifest, name) for name in key.described()} != key.described():
        return f'{MANIFEST} belongs to other models'
    for name, entry in manifest.models.items():
        file = folder / entry.file
        try:
            if entry.file != f'{name}.onnx' or file.is_symlink():
                return f'{entry.file!r} is not a file of this folder'
            found = file.stat().st_size
            if found != entry.bytes:
                return f'{entry.file} has {found} bytes instead of {entry.bytes}'
            if atomic.sha256_of(file) != entry.sha256:
                return f'{entry.file} was modified: its SHA-256 differs from the manifest'
            if found and (fault := _unchecked_content(file)):
                return f'{entry.file} {fault}'
        except OSError as error:
            return f'{entry.file} cannot be read ({error.strerror})'
    return ''


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest; raises `OSError`, `msgspec.MsgspecError`, `ValueError`."""
    with atomic.open_regular(folder / MANIFEST) as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f'it has more than {MAX_MANIFEST_BYTES} bytes')
    return msgspec.json.decode(data, type=Manifest)


def _unchecked_content(model: Path) -> str:
    """Describe content that a model would load unchecked; '' if there is none.

    Such content is a tensor in another file (key `location` of ONNX's external data) or a compiled
    engine.
    """
    with model.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b'location') >= 0:
            return 'refers to tensors in other files, which exported models never do'
        if content.find(b'EPContext') >= 0:
            return 'contains a compiled engine, which exported models never do'
    return ''


def newest_size(weights: str, precision: str, shorter_side: int) -> tuple[int, int] | None:
    """Return H, W of the most recently used exported models of these weights, or None.

    shorter_side: working size [px], before padding to multiples of 16; 0: any.
    """
    found = []
    for manifest in models_folder().glob(f'{weights[:16]}-*-{precision}-{FORMAT}/{MANIFEST}'):
        try:
            described = read_manifest(manifest.parent)
            size = described.height, described.width
            if not shorter_side or min(size) == -(-shorter_side // 16) * 16:
                found.append((manifest.stat().st_mtime_ns, size))
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            continue  # reported when they are loaded
    return max(found)[1] if found else None


def note_use(folder: Path) -> None:
    """Mark these models as the most recently used, if the folder is writable."""
    try:
        os.utime(folder / MANIFEST)
    except OSError:
        log.debug('%s: not marked as used', folder)


def write_manifest(folder: Path, key: ExportKey, models: dict[str, Any], **further: Any) -> None:
    """Write a folder's manifest and sync its files to disk.

    models: manifest entries by name; `file` is the model's file. further: other manifest entries.
    """
    for entry in models.values():
        path = folder / entry['file']
        entry |= {'bytes': path.stat().st_size, 'sha256': atomic.sha256_of(path)}
        _sync(path)
    work_folder.mark(folder)
    atomic.write_text(folder / MANIFEST, json.dumps({**key.described(), **further, 'models': models}, indent=2) + '\n')


def move_into_place(part: Path, target: Path, key: ExportKey) -> None:
    """Move an export to its place, unless intact models are already there.

    Intact models are kept with their TensorRT engines; only the numbers of objects are updated.
    """
    if os.path.lexists(target) and find_damage(target, key):
        work_folder.remove(target)
        if os.path.lexists(target):
            problem = f'{target} exists and was not made by xmem_ros: move it away'
            raise FileExistsError(errno.EEXIST, problem, str(target))
    try:
        part.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        old, new = (json.loads((folder / MANIFEST).read_text()) for folder in (target, part))
        atomic.write_text(target / MANIFEST, json.dumps({**new, 'models': old['models']}, indent=2) + '\n')
    atomic.sync_folder(target.parent)


def _exported_by(folder: Path) -> str:
    try:
        return str(read_json(folder / MANIFEST, EngineError).get('exported_by'))
    except (OSError, EngineError, AttributeError):
        return ''


def _sync(path: Path) -> None:
    """Sync a file to disk, so that its name does not survive a power loss without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
