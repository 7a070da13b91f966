# SPDX-License-Identifier: MIT
"""J and F of masks against ground truth, by `vos-benchmark`, in percent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import ParameterError
from xmem_ros.evaluation.datasets import check_size
from xmem_ros.media import VOID, read_mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from xmem_ros.evaluation.datasets import Sequence


def check_scorer() -> None:
    """Raise `ParameterError` unless vos-benchmark can be imported."""
    try:
        import vos_benchmark.evaluator  # noqa: F401
    except ImportError as error:
        raise ParameterError('scoring needs vos-benchmark: pip install vos-benchmark') from error


def score_masks(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], objects: Iterable[int]
) -> dict[int, tuple[float, float]]:
    """J and F of each object over frames.

    Arguments:
        pairs: masks and ground truth, each H×W uint8; void pixels (255 in the ground truth) count for nothing.
        objects: values to score; other values in the ground truth count as background.

    Returns:
        object → (J, F) in percent, means over the frames from the object's first on (Perazzi et al. 2016, section 4).
        An object that the ground truth shows in none of the frames has no scores.

    Raises:
        ParameterError: `vos-benchmark` is not installed.
    """
    check_scorer()
    from vos_benchmark.evaluator import Evaluator

    wanted = sorted(objects)
    known = np.zeros(256, np.uint8)
    known[wanted] = wanted
    evaluator = Evaluator()
    for mask, truth in pairs:
        counts = truth != VOID
        evaluator.feed_frame(known[mask] * counts, known[truth] * counts)
    j, f = evaluator.conclude()
    return {value: (float(j[value]), float(f[value])) for value in wanted if value in j}


def score_sequence(sequence: Sequence, folder: Path) -> dict[str, Any]:
    """Scores of the masks `folder/STEM.png`, which hold the data set's values, against a sequence's ground truth.

    As in the DAVIS semi-supervised benchmark, the first and the last of the masks are left out. Objects that no seed
    shows cannot be tracked and are not scored; `unseeded` lists them.

    Returns:
        `J`, `F`, `J&F` (percent; means over the objects, none where no object could be scored), `frames` (scored),
        `objects` (each with its J, F, J&F) and `unseeded`.

    Raises:
        FrameError: a mask and its ground truth differ in size.
        SeedError: a mask is absent or damaged.
    """
    stems = sorted(sequence.masks)
    seeded = {value for stem in sequence.seeds for value in _objects(sequence.values(stem))}
    unseeded: set[int] = set()

    def pairs() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for stem in stems[1:-1]:
            truth = sequence.values(stem)
            unseeded.update(_objects(truth) - seeded)
            path = folder / f'{stem}.png'
            mask = read_mask(path)
            check_size(path, mask, truth.shape, f'its ground truth {sequence.masks[stem]}')
            yield (mask == VOID).astype(np.uint8) if sequence.binary else mask, truth

    objects = score_masks(pairs(), seeded)
    return {
        **_means(objects.values()),
        'frames': len(stems) - 2,
        'objects': {str(value): _means([pair]) for value, pair in objects.items()},
        'unseeded': sorted(unseeded),
    }


def overall(sequences: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """`J`, `F`, `J&F` in percent: means over all objects of all sequences (each as of `score_sequence`)."""
    objects = [scores for sequence in sequences.values() for scores in sequence['objects'].values()]
    return _means([(scores['J'], scores['F']) for scores in objects])


def table(sequences: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores of sequences as lines of text, the overall ones last."""
    rows = [(name, scores) for name, scores in sequences.items()] + [('all objects', overall(sequences))]
    width = max(len(name) for name, _ in rows)
    lines = [f'{"sequence":<{width}}   J&F     J     F']
    for name, row in rows:
        figures = (f'{row[key]:5.1f}' if row[key] is not None else '    -' for key in ('J&F', 'J', 'F'))
        lines.append(f'{name:<{width}} {" ".join(figures)}')
    return '\n'.join(lines)


def _objects(mask: np.ndarray) -> set[int]:
    return set(np.unique(mask).tolist()) - {0, VOID}


def _means(pairs: Iterable[tuple[float, float]]) -> dict[str, float | None]:
    pairs = list(pairs)
    if not pairs:
        return {'J': None, 'F': None, 'J&F': None}
    j, f = np.mean(pairs, axis=0).tolist()
    return {'J': j, 'F': f, 'J&F': (j + f) / 2}
