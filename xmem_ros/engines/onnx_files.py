# SPDX-License-Identifier: MIT
"""Exported ONNX models on disk: a folder for each weights, size and precision, with a manifest of what is in it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmem_ros.errors import EngineError
from xmem_ros.weights.checkpoint import user_folder

FORMAT = 1  # of the models' inputs and outputs; another one makes other files
MANIFEST = 'manifest.json'
TRACKER, COMMAND = 'tracker', 'xmem-ros export'  # who exported

log = logging.getLogger(__name__)


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
        manifest = json.loads((folder / MANIFEST).read_text())
        if {name: manifest[name] for name in key.described()} != key.described():
            return f'{MANIFEST} is of other models'
        if not manifest['objects'] or not all(isinstance(count, int) and count > 0 for count in manifest['objects']):
            return f'{MANIFEST} names no numbers of objects'
        models = {what['file']: (what['bytes'], what['sha256']) for what in manifest['models'].values()}
    except FileNotFoundError:
        return f'{MANIFEST} is missing'
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f'{MANIFEST} cannot be read ({type(error).__name__}: {error})'
    for file, (size, sha256) in models.items():
        try:
            found = (folder / file).stat().st_size
            if found != size:
                return f'{file} has {found} bytes, and was written with {size}'
            if _sha256(folder / file) != sha256:
                return f'{file} is not as it was written: its SHA-256 is another'
        except OSError as error:
            return f'{file} cannot be read ({error.strerror})'
    return ''


def newest_size(weights: str, precision: str, shorter_side: int) -> tuple[int, int] | None:
    """H, W that the network saw when it last ran on exported models with these weights; None where it never did.

    shorter_side: px that images are scaled to and padded to multiples of 16; 0: any.
    """
    found = []
    for manifest in models_folder().glob(f'{weights[:16]}-*-{precision}-{FORMAT}/{MANIFEST}'):
        try:
            described = json.loads(manifest.read_text())
            size = int(described['height']), int(described['width'])
            if not shorter_side or min(size) == -(-shorter_side // 16) * 16:
                found.append((manifest.stat().st_mtime_ns, size))
        except (OSError, ValueError, KeyError, TypeError):
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
        what |= {'bytes': path.stat().st_size, 'sha256': _sha256(path)}
        _sync(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({**key.described(), **further, 'models': models}, indent=2) + '\n')
    _sync(manifest)
    _sync(folder)


def put(part: Path, target: Path, key: ExportKey) -> None:
    """Move what was exported to its place, unless whole models are there already.

    Those stay, with what TensorRT built of them, and only the numbers of objects become the new ones.
    """
    if target.exists() and damage(target, key):
        shutil.rmtree(target, ignore_errors=True)
    try:
        part.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        old, new = (json.loads((folder / MANIFEST).read_text()) for folder in (target, part))
        manifest = part / MANIFEST
        manifest.write_text(json.dumps({**new, 'models': old['models']}, indent=2) + '\n')
        _sync(manifest)
        manifest.replace(target / MANIFEST)
        _sync(target)
    _sync(target.parent)


def _exported_by(folder: Path) -> str:
    try:
        return str(json.loads((folder / MANIFEST).read_text()).get('exported_by'))
    except (OSError, ValueError, AttributeError):
        return ''


def _sha256(path: Path) -> str:
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
