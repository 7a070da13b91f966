# SPDX-License-Identifier: MIT
"""Exported ONNX models on disk: a folder for each weights, size and precision, with a manifest of what is in it."""

from __future__ import annotations

import errno
import hashlib
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
from xmem_ros.weights.checkpoint import user_folder

FORMAT = 1  # of the models' inputs and outputs; another one makes other files
MANIFEST = 'manifest.json'
TRACKER, COMMAND = 'tracker', 'xmem-ros export'  # who exported

MOST_MANIFEST = 1 << 20  # bytes
Digest = Annotated[str, msgspec.Meta(pattern='^[0-9a-f]{64}$')]

log = logging.getLogger(__name__)


class ModelFile(msgspec.Struct, frozen=True):
    """A model, as the manifest has it; further keys are for readers."""

    file: str
    bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
    sha256: Digest


class Manifest(msgspec.Struct, frozen=True):
    """What is in a folder of models; further keys are for readers."""

    format: int
    weights: Digest
    height: Annotated[int, msgspec.Meta(ge=16, le=65_536)]
    width: Annotated[int, msgspec.Meta(ge=16, le=65_536)]
    precision: str
    objects: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=254)]], msgspec.Meta(min_length=1, max_length=254)]
    models: Annotated[dict[str, ModelFile], msgspec.Meta(min_length=1, max_length=16)]


@dataclass(frozen=True)
class ExportKey:
    """What decides which models serve."""

    weights: str  # fingerprint
    height: int  # px that the network sees, multiples of 16
    width: int
    precision: str  # float32 or float16

    @property
    def folder(self) -> str:
        """Name of the folder that they lie in."""
        return f'{self.weights[:16]}-{self.height}x{self.width}-{self.precision}-{FORMAT}'

    def described(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {
            'format': FORMAT,
            'weights': self.weights,
            'height': self.height,
            'width': self.width,
            'precision': self.precision,
        }


def models_folder() -> Path:
    """Where exported models are kept: $XMEM_ROS_ONNX, or the user's cache."""
    return Path(os.environ.get('XMEM_ROS_ONNX') or user_folder() / 'onnx')


def find_models(key: ExportKey) -> Path | None:
    """The folder of models exported before; None where they are not there, or are damaged and may be made again.

    Raises `EngineError` where models are damaged that somebody exported with the command.
    """
    folder = models_folder() / key.folder
    if not folder.is_dir():
        return None
    problem = damage(folder, key)
    if not problem:
        return folder
    if _exported_by(folder) == COMMAND:
        raise EngineError(
            f'{folder}: {problem}; it was made by `{COMMAND}`: give that command again, copy the folder anew where '
            'it was made on another machine, or remove it and have the models exported here'
        )
    log.warning('%s: %s; the models are exported again', folder, problem)
    return None


def damage(folder: Path, key: ExportKey) -> str:
    """What is wrong with exported models, in words; '' where they are whole: every byte as it was written."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return f'{MANIFEST} is missing'
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f'{MANIFEST} cannot be read ({type(error).__name__}: {error})'
    if {name: getattr(manifest, name) for name in key.described()} != key.described():
        return f'{MANIFEST} is of other models'
    for name, what in manifest.models.items():
        file = folder / what.file
        try:
            if what.file != f'{name}.onnx' or file.is_symlink():
                return f'{what.file!r} is no file of this folder'
            found = file.stat().st_size
            if found != what.bytes:
                return f'{what.file} has {found} bytes, and was written with {what.bytes}'
            if sha256_of(file) != what.sha256:
                return f'{what.file} is not as it was written: its SHA-256 is another'
            if found and (reach := _reaches_out(file)):
                return f'{what.file} {reach}'
        except OSError as error:
            return f'{what.file} cannot be read ({error.strerror})'
    return ''


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder says of its models; raises `OSError`, `msgspec.MsgspecError`, `ValueError`."""
    path = folder / MANIFEST
    if path.stat().st_size > MOST_MANIFEST:
        raise ValueError(f'it has more than {MOST_MANIFEST} bytes')
    return msgspec.json.decode(path.read_bytes(), type=Manifest)


def _reaches_out(model: Path) -> str:
    """How a model would take in what the manifest does not cover, in words; '' where it does not.

    Other files hold its tensors (the key `location` of ONNX's external data), or a compiled engine is part of it.
    """
    with model.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b'location') >= 0:
            return 'keeps tensors in other files, which ours never do'
        if content.find(b'EPContext') >= 0:
            return 'holds a compiled engine, which ours never do'
    return ''


def newest_size(weights: str, precision: str, shorter_side: int) -> tuple[int, int] | None:
    """H, W that the network saw when it last ran on exported models with these weights; None where it never did.

    shorter_side: px that images are scaled to and padded to multiples of 16; 0: any.
    """
    found = []
    for manifest in models_folder().glob(f'{weights[:16]}-*-{precision}-{FORMAT}/{MANIFEST}'):
        try:
            described = read_manifest(manifest.parent)
            size = described.height, described.width
            if not shorter_side or min(size) == -(-shorter_side // 16) * 16:
                found.append((manifest.stat().st_mtime_ns, size))
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            continue  # said when they are to be used
    return max(found)[1] if found else None


def note_use(folder: Path) -> None:
    """Remember that these models were the last to be used; not where the folder belongs to somebody else."""
    try:
        os.utime(folder / MANIFEST)
    except OSError:
        log.debug('%s: not noted as used', folder)


def write_manifest(folder: Path, key: ExportKey, models: dict[str, Any], **further: Any) -> None:
    """Write what is in a folder, and see to it that all of it is on the disk.

    models: what the manifest says of each, by name; `file` is its file. further: other entries of the manifest.
    """
    for what in models.values():
        path = folder / what['file']
        what |= {'bytes': path.stat().st_size, 'sha256': sha256_of(path)}
        _sync(path)
    work_folder.mark(folder)
    atomic.write_text(folder / MANIFEST, json.dumps({**key.described(), **further, 'models': models}, indent=2) + '\n')


def put(part: Path, target: Path, key: ExportKey) -> None:
    """Move what was exported to its place, unless whole models are there already.

    Those stay, with what TensorRT built of them, and only the numbers of objects become the new ones.
    """
    if os.path.lexists(target) and damage(target, key):
        work_folder.remove(target)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, f'{target} is there already and not ours: move it away', str(target))
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


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Have the disk hold what was written: a name must not outlive a loss of power that its content does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
