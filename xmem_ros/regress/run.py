# SPDX-License-Identifier: MIT
"""Run the cases of a suite, one after the other. A case that fails does not stop the others."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import FrameError, ParameterError, XMemError
from xmem_ros.progress import Bar
from xmem_ros.regress.figures import Figures
from xmem_ros.regress.overlaps import Overlap, figures_of, overlap, score
from xmem_ros.regress.pictures import WorstFrames
from xmem_ros.regress.references import Binary, open_reference
from xmem_ros.regress.removals import Vanished
from xmem_ros.regress.results import Result, check
from xmem_ros.regress.runners import open_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xmem_ros.regress.case_inputs import Seen
    from xmem_ros.regress.references import Masks
    from xmem_ros.regress.suite import Case


_KEYS = {
    '--image-topic ': 'image_topic: ',
    '--image-topic': 'image_topic',
    '--seeds-topic ': 'seeds.topic: ',
    '--timeout': 'timeout',
    '--seed': 'seeds',
}


def run_cases(cases: Sequence[Case], baseline: Mapping[str, Figures] | None, *, pictures: bool = False) -> list[Result]:
    """Run cases and check what came of them.

    Arguments:
        cases: to run, in this order.
        baseline: case → figures to compare with; None: there is no baseline.
        pictures: draw the worst frames.
    """
    results = []
    for case in cases:
        result = Result(case.name, case.runner, case.parameters)
        begun = time.perf_counter()
        try:
            _run(case, result, WorstFrames(case.reference) if pictures else None)
            check(result, case, (baseline or {}).get(case.name))
            if baseline is not None and case.name not in baseline:
                result.notes.append('not in the baseline yet; --update-baseline adds it')
        except (XMemError, OSError) as error:
            result.error = _as_keys(str(error))
        except Exception as error:  # the other cases are to run, whatever this is
            logging.getLogger(__name__).debug('case %s', case.name, exc_info=True)
            where = traceback.extract_tb(error.__traceback__)[-1]
            result.error = (
                f'{type(error).__name__}: {error} ({where.filename}:{where.lineno}); this is a fault of xmem_ros'
            )
        result.seconds = time.perf_counter() - begun
        results.append(result)
    return results


def _as_keys(text: str) -> str:
    """An error's text, with the keys of a case where it names options of other commands."""
    for option, key in _KEYS.items():
        text = text.replace(option, key)
    return text


def _run(case: Case, result: Result, worst: WorstFrames | None) -> None:
    masks = open_reference(case.reference)
    overlaps: list[Overlap] = []
    binary = Binary()
    vanished = Vanished()
    times: dict[str, list[float]] = {'processing_ms': [], 'age_ms': []}
    with open_run(case) as run:
        with Bar(run.frames(), total=run.length, desc=case.name, unit='frame') as bar:
            for seen in bar:
                result.frames += 1
                for name, value in (('processing_ms', seen.processing_ms), ('age_ms', seen.age_ms)):
                    if value is not None:
                        times[name].append(value)
                vanished.see(seen.name, seen.objects, seen.removed)
                truth = _truth(masks, binary, seen)
                if truth is None:
                    continue
                found = overlap(seen.name, seen.labels, seen.objects, truth, seen.removed)
                overlaps.append(found)
                if worst is not None:
                    worst.add(seen.index, found, seen.image, seen.labels, seen.objects, truth)
        measured, notes = run.measured(), run.notes()
        damages = dict.fromkeys(filter(None, (run.damage(), masks.damage)))  # of one bag it is the same
    if not result.frames:
        raise ParameterError(f'{case.input}: no frame was tracked')
    if not overlaps:
        raise ParameterError(
            f'{case.input}: none of its {result.frames} frames has a reference mask; {masks.sample()}, the last frame '
            f'is {seen.name!r} with the stamp {seen.stamp_ns} ns'
        )
    result.compared = len(overlaps)
    result.objects = score(overlaps, case.reference.objects, case.reference.min_area)
    if not result.objects:
        raise ParameterError(
            f'{case.input}: no frame can be compared: of {len(overlaps)} with a reference mask none comes after the '
            f'seeds and shows an object of {case.reference.min_area} px or more'
        )
    result.figures = figures_of(result.objects) | measured
    result.figures |= {'tracked_frames': result.frames, 'compared_frames': result.compared}
    result.figures |= {name: float(np.percentile(values, 95)) for name, values in times.items() if values}
    result.notes += vanished.notes[:5] + notes
    if case.allow_damage:
        result.notes += damages
    else:
        result.damage = '; '.join(damages)
    result.tiles = worst.tiles if worst is not None else []


def _truth(masks: Masks, binary: Binary, seen: Seen) -> np.ndarray | None:
    mask = masks.read(seen.name, seen.index, seen.stamp_ns)
    if mask is None:
        return None
    if mask.shape != seen.labels.shape:
        raise FrameError(
            f'frame {seen.name}: its reference mask is {mask.shape[1]}×{mask.shape[0]} px, the frame '
            f'{seen.labels.shape[1]}×{seen.labels.shape[0]}; they must be of one size'
        )
    return binary.values(mask)
