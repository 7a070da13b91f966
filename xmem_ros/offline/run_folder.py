# SPDX-License-Identifier: MIT
"""Work folder of an offline run: lock, identity and the segments of its passes. No rclpy."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from xmem_ros import atomic, work_folder
from xmem_ros.errors import OutputError, ParameterError, Setting, naming
from xmem_ros.offline import destination
from xmem_ros.offline.destination import check_destination, check_name, work_folder_of
from xmem_ros.offline.job import CONTENT, SEEDS, described
from xmem_ros.offline.segments import Segments

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RESULTS = 'results'  # folder that is renamed to the destination
_SPOOL = 'spool'  # folder of images that wait to be tracked backwards
_IDENTITY = 'run.json'


class RunFolder(Segments):
    """The locked work folder of a run: `.NAME.part` beside the destination.

    It has the segments of the forward pass; `backward` has those of the backward pass.

    Arguments:
        out: the destination.
        identity: everything that the results depend on; only the same identity resumes.
        restart: discard earlier work.

    Raises:
        ParameterError: another run holds the lock, or earlier work has other arguments.
        OutputError: the folder cannot be created.
    """

    def __init__(self, out: Path, identity: Mapping[str, str], *, restart: bool = False) -> None:
        super().__init__(work_folder_of(out))
        self.out = out
        self.backward = Segments(self.folder, 'backward_')
        check_name(out)
        self._lock = work_folder.claim(self.folder, 'another run')
        try:
            check_destination(out)  # again: another run may have delivered meanwhile
            self._check_identity(dict(identity), restart=restart)
        except BaseException as error:
            if not (self.folder / _IDENTITY).exists():
                self.discard()
            self._lock.close()
            if isinstance(error, OSError):
                text = f'{self.folder}: cannot be written ({error.strerror}); choose another destination'
                raise naming(Setting.DESTINATION, OutputError(text)) from error
            raise

    def results(self) -> Path:
        """Return an empty folder for the results."""
        return self._emptied(RESULTS)

    def spool(self) -> Path:
        """Return an empty folder for images that wait to be tracked backwards."""
        return self._emptied(_SPOOL)

    def deliver(self) -> None:
        """Rename the results to the destination and remove the rest; raises `OutputError`."""
        destination.deliver(self.folder / RESULTS, self.out)
        self.discard()

    def discard(self) -> None:
        """Remove the folder."""
        destination.discard(self.out)

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def _emptied(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _check_identity(self, identity: dict[str, str], *, restart: bool) -> None:
        identity_file = self.folder / _IDENTITY
        if not restart and identity_file.is_file():
            try:
                before = json.loads(identity_file.read_text(encoding='utf-8'))
            except (ValueError, RecursionError):
                before = {}
            before = before if isinstance(before, dict) else {}
            next_index = self.next_index()
            changed = sorted(
                key
                for key in {*identity, *before}
                if identity.get(key) != before.get(key)
                # seeds of later images may be corrected
                and not (key.startswith(SEEDS) and _image_index(key) >= next_index)
            )
            changes = '; '.join(f'{described(key)}: {before.get(key)}, now {identity.get(key)}' for key in changed)
            if changed == [CONTENT]:
                text = (
                    f'{self.folder}: the input of an interrupted run has changed since ({changes}); restore the '
                    'files to resume, choose another destination, or start over'
                )
                raise naming(Setting.RESTART, ParameterError(text))
            if changed:
                text = (
                    f'{self.folder}: an interrupted run was begun with other arguments ({changes}); give the same ones '
                    'to resume, choose another destination, or start over'
                )
                raise naming(Setting.RESTART, ParameterError(text))
            for part in self.folder.glob(f'*{atomic.PART}'):
                part.unlink(missing_ok=True)
            if identity != before:
                _write_identity(identity_file, identity)
            return
        work_folder.empty(self.folder)
        _write_identity(identity_file, identity)


def _image_index(key: str) -> int:
    """Return the image index of a seed entry of an identity; −1 if it is invalid."""
    number = key.removeprefix(SEEDS)
    return int(number) if number.isdecimal() and len(number) < 10 else -1


def _write_identity(path: Path, identity: dict[str, str]) -> None:
    atomic.write_text(path, json.dumps(identity, indent=1))
