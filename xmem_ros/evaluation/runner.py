# SPDX-License-Identifier: MIT
"""Run a tracker over the sequences of a data set, write its masks and score them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from xmem_ros.errors import ParameterError, XMemError
from xmem_ros.evaluation.datasets import DATASETS
from xmem_ros.evaluation.follow import follow
from xmem_ros.evaluation.scores import check_scorer, overall, score_sequence
from xmem_ros.media import VOID, write_labels
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.objects import MOST_OBJECTS
from xmem_ros.tracker import AUTO_SIZE, Tracker, TrackerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from xmem_ros.evaluation.datasets import Sequence


def evaluate(
    dataset: str,
    root: Path,
    *,
    weights: str = 'compact',
    size: int = AUTO_SIZE,
    device: str = 'auto',
    output: Path,
    memory: str = 'published',
    progress: bool = True,
) -> dict[str, Any]:
    """Track every sequence of a data set and score the masks.

    Masks are written to `output/SEQ/STEM.png` as palette PNGs of the frames' own size, with the data set's values. A
    sequence's folder appears once it is whole, and is kept by a later run of the same settings.

    Arguments:
        dataset: a name in `DATASETS`.
        root: folder of the data set.
        weights: name or file, as for `Tracker.from_weights`.
        size: px of the shorter side that frames are tracked at; −1: what suits the weights.
        device: as for `Tracker.from_weights`.
        output: folder for the masks.
        memory: `published`, the policy of the paper, or `default`, that of the node.
        progress: show a bar.

    Returns:
        `J`, `F`, `J&F` in percent over all objects, the settings, and `sequences`: name → scores of that sequence.

    Raises:
        XMemError: the data set, the weights, the device or the output folder cannot be used; the text names the file.
    """
    if dataset not in DATASETS:
        raise ParameterError(f'data set {dataset!r} is not known; there is {", ".join(DATASETS)}')
    if size != AUTO_SIZE and size < 16:
        raise ParameterError(f'size {size}; the shorter side is at least 16 px')
    check_scorer()  # before hours of tracking
    sequences = DATASETS[dataset](root)
    most = max(_count_objects(sequence) for sequence in sequences)
    policy = MemoryConfig() if memory == 'default' else MemoryConfig().published()
    config = TrackerConfig(size=size, max_objects=min(most, MOST_OBJECTS), memory=policy)
    tracker = Tracker.from_weights(weights, device=device, config=config)
    settings = {'dataset': dataset, 'weights': str(weights), 'size': tracker.config.size, 'memory': memory}
    _claim(output, {**settings, 'root': str(root.resolve()), 'network': tracker.fingerprint})
    total = sum(len(sequence.frames) for sequence in sequences)
    with tqdm(total=total, unit='frame', disable=not progress) as bar:
        for sequence in sequences:
            bar.set_description(sequence.name)
            if not _is_finished(sequence, output / sequence.name):
                _track_into(tracker, sequence, output / sequence.name, bar)
            else:
                bar.update(len(sequence.frames))
    bar = tqdm(sequences, desc='scoring', unit='sequence', disable=not progress)
    scores = {sequence.name: score_sequence(sequence, output / sequence.name) for sequence in bar}
    return {**overall(scores), **settings, 'sequences': scores}


def track_sequence(tracker: Tracker, sequence: Sequence) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the stem of each frame and its mask, H×W uint8 in the sequence's own object values.

    Raises:
        XMemError: a frame or a mask that cannot be used; the text names sequence and file.
    """

    def seeds(index: int, frame: np.ndarray) -> dict[int, np.ndarray]:
        stem = sequence.frames[index].stem
        return sequence.seed_objects(stem, frame) if stem in sequence.seeds else {}

    frames = ((path.stem, sequence.frame(index)) for index, path in enumerate(sequence.frames))
    try:
        for followed in follow(tracker, frames, seeds, length=len(sequence.frames)):
            yield followed.name, followed.values
    except XMemError as error:
        raise type(error)(f'sequence {sequence.name}: {error}') from error


def _count_objects(sequence: Sequence) -> int:
    """How many objects seed a sequence; what is wrong with its seeds comes to light before any is tracked."""
    frames = {path.stem: index for index, path in enumerate(sequence.frames)}
    return sum(len(sequence.seed_objects(stem, sequence.frame(frames[stem]))) for stem in sequence.seeds)


def _track_into(tracker: Tracker, sequence: Sequence, folder: Path, bar: tqdm[Any]) -> None:
    """Write a sequence's masks into a folder that appears once they are all there."""
    part = folder.with_name(f'.{folder.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for stem, mask in track_sequence(tracker, sequence):
        write_labels(part / f'{stem}.png', (mask > 0).astype(np.uint8) * VOID if sequence.binary else mask)
        bar.update()
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _is_finished(sequence: Sequence, folder: Path) -> bool:
    return all((folder / f'{frame.stem}.png').is_file() for frame in sequence.frames)


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Make the output folder, or see that what it holds was made by the same settings.

    Raises:
        ParameterError: it was not.
    """
    record = output / 'settings.json'
    try:
        if record.is_file():
            earlier = json.loads(record.read_text())
            changed = [key for key in settings if earlier.get(key) != settings[key]]
            if changed:
                raise ParameterError(
                    f'{output}: holds masks of other settings ({", ".join(changed)} differ); '
                    'choose another output folder or remove this one'
                )
            return
        if output.is_dir() and any(output.iterdir()):
            raise ParameterError(f'{output}: not empty and not of an earlier evaluation; choose another output folder')
        output.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(settings, indent=2) + '\n')
    except (OSError, json.JSONDecodeError) as error:
        raise ParameterError(f'{output}: cannot be used as output folder: {error}') from error
