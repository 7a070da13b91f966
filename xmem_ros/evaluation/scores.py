# SPDX-License-Identifier: MIT
"""J and F of masks against ground truth, in percent, by `vos-benchmark`.

Its rules apply where tools differ:

- every value of the ground truth except 0 is an object, including 255 and objects without a seed;
- an object counts from the first scored frame in which the ground truth or the mask shows it;
- values that the ground truth never shows do not count.
"""

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

MEASURES = ('J', 'F', 'J&F')


def check_scorer() -> None:
    """Raise `ParameterError` unless vos-benchmark can be imported."""
    try:
        import vos_benchmark.evaluator  # noqa: F401
    except ImportError as error:
        raise ParameterError('scoring needs vos-benchmark: pip install vos-benchmark') from error


def score_masks(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[int, tuple[float, float]]:
    """Compute J and F of each object over frames.

    Arguments:
        pairs: mask and ground truth of each frame, H×W uint8.

    Returns:
        Object → (J, F) in percent, means over frames (Perazzi et al. 2016, section 4), by value.

    Raises:
        ParameterError: `vos-benchmark` is not installed.
    """
    check_scorer()
    from vos_benchmark.evaluator import Evaluator

    evaluator = Evaluator()
    for mask, truth in pairs:
        evaluator.feed_frame(mask, truth)
    j, f = evaluator.conclude()
    return {int(value): (float(j[value]), float(f[value])) for value in sorted(j)}


def score_sequence(sequence: Sequence, folder: Path, *, ignore_void: bool = False) -> dict[str, Any]:
    """Score the masks `folder/STEM.png` against the ground truth of a sequence.

    Arguments:
        sequence: sequence with the frames to score.
        folder: folder of the masks, which have the data set's values.
        ignore_void: whether to ignore pixels that are 255 in a ground truth with other values.

    Returns:
        `J`, `F`, `J&F` (percent, means over objects; None without objects), `frames` (scored),
        `objects` (J, F, J&F of each) and `unseeded` (scored objects without a seed).

    Raises:
        FrameError: a mask and its ground truth differ in size.
        SeedError: a mask is absent or damaged.
    """
    if sequence.scored_objects is None:
        objects = score_masks(_pairs(sequence, folder, sequence.scored, ignore_void))
    else:
        objects = {}
        for value, stems in sequence.scored_objects.items():
            pairs = _pairs(sequence, folder, stems, ignore_void)
            alone = (((mask == value).astype(np.uint8), (truth == value).astype(np.uint8)) for mask, truth in pairs)
            if score := score_masks(alone):
                objects[value] = score[1]
    seeded: set[int] = set()
    for seed in sequence.seeds.values():
        seeded |= seed.objects or (set(np.unique(sequence.values(seed.path)).tolist()) - {0})
    return {
        **_means(objects.values()),
        'frames': len(sequence.scored),
        'objects': {str(value): _means([pair]) for value, pair in objects.items()},
        'unseeded': sorted(set(objects) - seeded),
    }


def _pairs(
    sequence: Sequence, folder: Path, stems: Iterable[str], ignore_void: bool
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    for stem in stems:
        truth = sequence.values(sequence.truth[stem])
        path = folder / f'{stem}.png'
        mask = read_mask(path)
        check_size(path, mask, truth.shape, f'its ground truth {sequence.truth[stem]}')
        if ignore_void and not sequence.binary:
            counts = truth != VOID
            mask, truth = mask * counts, truth * counts
        yield mask, truth


def overall(sequences: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Average `J`, `F`, `J&F` in percent over all objects of sequences from `score_sequence`."""
    objects = [scores for sequence in sequences.values() for scores in sequence.get('objects', {}).values()]
    return _means([(scores['J'], scores['F']) for scores in objects])


def table(sequences: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the scores of sequences and of several objects as a table; the overall scores last."""
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for name, scores in sequences.items():
        rows.append((name, scores))
        if len(scores.get('objects', {})) > 1:
            rows += [(f'  object {value}', one) for value, one in scores['objects'].items()]
    rows.append(('all objects', overall(sequences)))
    width = max(len(name) for name, _ in rows)
    lines = [f'{"sequence":<{width}}   J&F     J     F']
    for name, row in rows:
        figures = (f'{row[key]:5.1f}' if row.get(key) is not None else '    -' for key in ('J&F', 'J', 'F'))
        lines.append(f'{name:<{width}} {" ".join(figures)}')
    return '\n'.join(lines)


def _means(pairs: Iterable[tuple[float, float]]) -> dict[str, float | None]:
    pairs = list(pairs)
    if not pairs:
        return {'J': None, 'F': None, 'J&F': None}
    j, f = np.mean(pairs, axis=0).tolist()
    return {'J': j, 'F': f, 'J&F': (j + f) / 2}
