# SPDX-License-Identifier: MIT
"""Output folder: masks in the layout of the data set's server, settings, and a zip to upload.

OUTPUT/SEQ/STEM.png                 or OUTPUT/Annotations/SEQ/STEM.png, as the server requires
OUTPUT/settings.json                settings of the evaluation
OUTPUT/finished.N.jsonl             one line for each sequence of process N: frames and seconds
OUTPUT/DATASET-SPLIT.zip            if a server scores the masks
"""

from __future__ import annotations

import errno
import json
import os
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xmem_ros import atomic, work_folder
from xmem_ros.data_files import MAX_JSON_BYTES, read_json
from xmem_ros.errors import OutputError, ParameterError
from xmem_ros.media import write_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from xmem_ros.evaluation.datasets import Sequence
    from xmem_ros.evaluation.settings import Settings

SETTINGS = 'settings.json'
REMEDY = (
    'free some space and run the same command again, which keeps finished sequences; or choose another output folder'
)
PROBABILITIES = 'probabilities'  # folder for the probabilities of the passes, until they are merged


@contextmanager
def named_errors(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turn an `OSError` into an `OutputError` with the name of the file and a remedy."""
    try:
        yield
    except OSError as error:
        raise OutputError(f'{path}: cannot be written ({error.strerror or error}); {remedy}') from error


class Output:
    """Output folder of an evaluation."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.masks = folder / settings.about.masks_folder if settings.about.masks_folder else folder

    def claim(self, record: Mapping[str, Any]) -> None:
        """Create the folder, or check that its content has the same settings.

        Raises:
            ParameterError: it has other settings, or is not an output folder.
        """
        file = self.folder / SETTINGS
        try:
            self._check_links()
            if file.is_file():
                earlier = read_json(file, ParameterError)
                if not isinstance(earlier, dict):
                    raise ParameterError(f'{file}: not the settings of an evaluation; choose another output folder')
                changed = [key for key in record if earlier.get(key) != json.loads(json.dumps(record[key]))]
                if changed:
                    raise ParameterError(
                        f'{self.folder}: contains masks made with other settings (different: {", ".join(changed)}); '
                        'choose another output folder or remove this one'
                    )
                self._sweep()
                return
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ParameterError(
                    f'{self.folder}: not empty, and not an earlier evaluation; choose another output folder'
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(dict(record), indent=2) + '\n')
        except OSError as error:
            raise ParameterError(
                f'{self.folder}: cannot be used as output folder ({error}); choose another one'
            ) from error

    def _check_links(self) -> None:
        """Raise `ParameterError` for a link in the place of a folder that is written to."""
        inside = (self.masks, *self.masks.iterdir()) if self.masks.is_dir() else (self.masks,)
        for folder in inside:
            if folder != self.folder and folder.is_symlink():
                raise ParameterError(f'{folder}: a symbolic link, which is not followed; choose another output folder')

    def _sweep(self) -> None:
        """Remove unfinished sequences and probabilities of a killed run."""
        for folder in {self.folder, self.masks}:
            for part in folder.glob(f'.*{atomic.PART}'):
                work_folder.remove(part)

    def folder_of(self, sequence: Sequence) -> Path:
        """Return the folder of a finished sequence."""
        return self.masks / sequence.name

    def is_finished(self, sequence: Sequence) -> bool:
        """Whether all masks of a sequence are present."""
        folder = self.folder_of(sequence)
        return folder.is_dir() and all((folder / f'{stem}.png').is_file() for stem in sequence.written)

    @contextmanager
    def filling(self, sequence: Sequence) -> Iterator[Path]:
        """Yield a temporary folder for a sequence's masks; it is renamed unless an error occurs."""
        folder = self.folder_of(sequence)
        part = atomic.temporary_name(folder)
        with named_errors(part):
            work_folder.make(part)
        try:
            yield part
            with named_errors(folder):
                _deliver(part, folder)
        finally:
            work_folder.remove(part)

    def note(self, rank: int, sequence: str, facts: Mapping[str, Any]) -> None:
        """Record the facts of a finished sequence."""
        file = self.folder / f'finished.{rank}.jsonl'
        with named_errors(file), atomic.open_append(file) as lines:
            lines.write((json.dumps({'sequence': sequence, **facts}) + '\n').encode())

    def notes(self) -> dict[str, dict[str, Any]]:
        """Read the records: sequence → facts. Lines cut off by a killed process are ignored."""
        found = {}
        for file in sorted(self.folder.glob('finished.*.jsonl'), key=lambda file: file.stat().st_mtime):
            for line in atomic.read_small(file, MAX_JSON_BYTES).decode(errors='replace').splitlines():
                try:
                    facts = json.loads(line)
                    found[facts.pop('sequence')] = facts
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    continue
        return found

    def zip(self, sequences: list[Sequence]) -> Path:
        """Pack the masks for the data set's server; returns the file."""
        path = self.folder / f'{self.settings.dataset}-{self.settings.split}.zip'
        # PNGs are compressed already
        with (
            named_errors(path),
            atomic.writing(path) as part,
            zipfile.ZipFile(part, 'w', zipfile.ZIP_STORED) as archive,
        ):
            for sequence in sequences:
                for stem in sequence.written:
                    file = self.folder_of(sequence) / f'{stem}.png'
                    archive.write(file, file.relative_to(self.folder))
        return path


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask H×W uint8 as a palette PNG; raises `OutputError` naming the file."""
    with named_errors(path):
        write_labels(path, mask)


def write_text(path: Path, text: str, remedy: str = REMEDY) -> None:
    """Write a file atomically; raises `OutputError` with its name and the remedy."""
    with named_errors(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, text)


def _deliver(part: Path, folder: Path) -> None:
    """Rename a sequence's folder into place; in an existing folder, replace only the masks."""
    if not os.path.lexists(folder):
        part.rename(folder)
        work_folder.unmark(folder)
        return
    if folder.is_symlink():
        raise OSError(errno.ELOOP, 'it is a symbolic link, which is not followed', str(folder))
    for file in part.iterdir():
        if file.name != work_folder.MARK:
            file.replace(folder / file.name)
