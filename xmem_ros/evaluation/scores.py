# SPDX-License-Identifier: MIT
"""J and F of masks against ground truth, in percent, as `vos-benchmark` computes them.

What it does where other tools differ is done here too: every value of the ground truth but 0 is an object, 255 and
those that no seed shows among them; an object counts from the first scored frame on in which the ground truth or the
masks show it; values that the ground truth never shows count for nothing.
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
    """J and F of each object over frames.

    Arguments:
        pairs: masks and ground truth, each H×W uint8.

    Returns:
        object → (J, F) in percent, means over frames (Perazzi et al. 2016, section 4), in order of value.

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
    """Scores of the masks `folder/STEM.png`, which hold the data set's values, against a sequence's ground truth.

    Arguments:
        sequence: says which frames are scored.
        folder: of the masks.
        ignore_void: pixels that are 255 in the ground truth count for nothing, where there are other values.

    Returns:
        `J`, `F`, `J&F` (percent; means over the objects, none where no object could be scored), `frames` (scored),
        `objects` (each with its J, F, J&F) and `unseeded`: objects that are scored, though no seed shows them.

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
    """`J`, `F`, `J&F` in percent: means over all objects of all sequences (each as of `score_sequence`)."""
    objects = [scores for sequence in sequences.values() for scores in sequence.get('objects', {}).values()]
    return _means([(scores['J'], scores['F']) for scores in objects])


def table(sequences: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores of sequences, and of the objects of those with several, as lines of text; the overall ones last."""
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
