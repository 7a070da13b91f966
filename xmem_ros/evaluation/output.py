# SPDX-License-Identifier: MIT
"""The output folder: masks in the layout that servers and tools expect, what made them, and a zip to upload.

OUTPUT/SEQ/STEM.png                 or OUTPUT/Annotations/SEQ/STEM.png, as the data set's server wants it
OUTPUT/settings.json                what made the masks
OUTPUT/finished.N.jsonl             a line for each sequence that process N finished: its frames and seconds
OUTPUT/DATASET-SPLIT.zip            where a server scores
"""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xmem_ros import atomic, work_folder
from xmem_ros.data_files import read_json
from xmem_ros.errors import OutputError, ParameterError
from xmem_ros.media import write_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from xmem_ros.evaluation.datasets import Sequence
    from xmem_ros.evaluation.settings import Settings

SETTINGS = 'settings.json'
KEPT = (
    'make room or choose another output folder, and give the same command again: sequences that are finished are kept'
)
PROBABILITIES = 'probabilities'  # of the folder that holds them until they are merged


@contextmanager
def named_errors(path: Path, remedy: str = KEPT) -> Iterator[None]:
    """Turn an error of the file system into an `OutputError` that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(f'{path}: cannot be written ({error.strerror or error}); {remedy}') from error


class Output:
    """The folder that an evaluation writes to."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.masks = folder / settings.about.masks_folder if settings.about.masks_folder else folder

    def claim(self, record: Mapping[str, Any]) -> None:
        """Make the folder, or see that what it holds was made by the same settings.

        Raises:
            ParameterError: it was not.
        """
        file = self.folder / SETTINGS
        try:
            if file.is_file():
                earlier = read_json(file, ParameterError)
                if not isinstance(earlier, dict):
                    raise ParameterError(f'{file}: not the settings of an evaluation; choose another output folder')
                changed = [key for key in record if earlier.get(key) != json.loads(json.dumps(record[key]))]
                if changed:
                    raise ParameterError(
                        f'{self.folder}: holds masks of other settings ({", ".join(changed)} differ); '
                        'choose another output folder or remove this one'
                    )
                self._sweep()
                return
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ParameterError(
                    f'{self.folder}: not empty and not of an earlier evaluation; choose another output folder'
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(dict(record), indent=2) + '\n')
        except OSError as error:
            raise ParameterError(f'{self.folder}: cannot be used as output folder: {error}') from error

    def _sweep(self) -> None:
        """Remove what a killed run left behind: parts of sequences, and probabilities that waited for their merge."""
        for folder in {self.folder, self.masks}:
            for left in folder.glob(f'.*{atomic.PART}'):
                work_folder.remove(left)

    def folder_of(self, sequence: Sequence) -> Path:
        """Where a sequence's masks are once they are all there."""
        return self.masks / sequence.name

    def is_finished(self, sequence: Sequence) -> bool:
        """Whether all masks of a sequence are there."""
        folder = self.folder_of(sequence)
        return folder.is_dir() and all((folder / f'{stem}.png').is_file() for stem in sequence.written)

    @contextmanager
    def filling(self, sequence: Sequence) -> Iterator[Path]:
        """A folder to write a sequence's masks into; it takes its place when the block ends without an error."""
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
        """Remember what is known of a sequence that is finished."""
        file = self.folder / f'finished.{rank}.jsonl'
        with named_errors(file), atomic.open_append(file) as lines:
            lines.write((json.dumps({'sequence': sequence, **facts}) + '\n').encode())

    def notes(self) -> dict[str, dict[str, Any]]:
        """Sequence → what was noted of it; of a line that was cut off when its process died, nothing."""
        found = {}
        for file in sorted(self.folder.glob('finished.*.jsonl'), key=lambda file: file.stat().st_mtime):
            for line in file.read_text(encoding='utf-8', errors='replace').splitlines():
                try:
                    facts = json.loads(line)
                    found[facts.pop('sequence')] = facts
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    continue
        return found

    def zip(self, sequences: list[Sequence]) -> Path:
        """Pack the masks as the data set's server wants them; returns the file."""
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


def write_text(path: Path, text: str, remedy: str = KEPT) -> None:
    """Write a file that appears once it is whole; raises `OutputError` naming it, and what to do."""
    with named_errors(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, text)


def _deliver(part: Path, folder: Path) -> None:
    """Rename a sequence's folder into place; where one is there, its masks are replaced and the rest of it stays."""
    if not os.path.lexists(folder):
        part.rename(folder)
        work_folder.unmark(folder)
        return
    for file in part.iterdir():
        if file.name != work_folder.MARK:
            file.replace(folder / file.name)
