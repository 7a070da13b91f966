# SPDX-License-Identifier: MIT
"""Run of the cases of a suite, in order; a case that fails does not stop the others."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import FrameError, ParameterError, Setting, XMemError, with_setting
from xmem_ros.progress import Bar
from xmem_ros.regress.figures import Figures
from xmem_ros.regress.overlaps import Overlap, figures_of, overlap, score
from xmem_ros.regress.pictures import WorstFrames
from xmem_ros.regress.references import VoidValue, open_reference
from xmem_ros.regress.removals import UnexpectedRemovals
from xmem_ros.regress.results import Result, check
from xmem_ros.regress.runners import open_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xmem_ros.regress.case_inputs import FrameResult
    from xmem_ros.regress.references import Masks
    from xmem_ros.regress.suite import Case

KEYS = {
    Setting.IMAGE_TOPIC: 'image_topic',
    Setting.SEEDS_TOPIC: 'seeds.topic',
    Setting.SEEDS: 'seeds',
    Setting.TIMEOUT: 'timeout',
}
"""Setting that an error names → key of a case."""


def run_cases(cases: Sequence[Case], baseline: Mapping[str, Figures] | None, *, pictures: bool = False) -> list[Result]:
    """Run cases and check their results.

    Arguments:
        cases: to run, in this order.
        baseline: case → figures to compare with; None: no baseline.
        pictures: whether to draw the worst frames.
    """
    results = []
    for case in cases:
        result = Result(case.name, case.runner, case.parameters)
        begun = time.perf_counter()
        try:
            _run(case, result, WorstFrames(case.reference) if pictures else None)
            check(result, case, (baseline or {}).get(case.name))
            if baseline is not None and case.name not in baseline:
                result.notes.append('not in the baseline yet; update it')
                result.incomplete_baseline = True
        except (XMemError, OSError) as error:
            result.error = with_setting(error, KEYS)
        except Exception as error:  # an internal error must not stop the other cases
            logging.getLogger(__name__).debug('case %s', case.name, exc_info=True)
            where = traceback.extract_tb(error.__traceback__)[-1]
            result.error = (
                f'{type(error).__name__}: {error} ({where.filename}:{where.lineno}); this is a fault of xmem_ros'
            )
        result.seconds = time.perf_counter() - begun
        results.append(result)
    return results


def _run(case: Case, result: Result, worst: WorstFrames | None) -> None:
    masks = open_reference(case.reference)
    overlaps: list[Overlap] = []
    void_value = VoidValue()
    removals = UnexpectedRemovals()
    times: dict[str, list[float]] = {'processing_ms': [], 'age_ms': []}
    with open_run(case) as run:
        with Bar(run.frames(), total=run.length, desc=case.name, unit='frame') as bar:
            for frame in bar:
                result.frames += 1
                for name, value in (('processing_ms', frame.processing_ms), ('age_ms', frame.age_ms)):
                    if value is not None:
                        times[name].append(value)
                removals.add(frame.name, frame.objects, frame.removed)
                mask = _reference_mask(masks, void_value, frame)
                if mask is None:
                    continue
                found = overlap(frame.name, frame.labels, frame.objects, mask, frame.removed)
                overlaps.append(found)
                if worst is not None:
                    worst.add(frame.index, found, frame.image, frame.labels, frame.objects, mask)
        measured, notes = run.figures(), run.notes()
        damages = dict.fromkeys(filter(None, (run.damage(), masks.damage)))  # equal for the same bag
    if not result.frames:
        raise ParameterError(f'{case.input}: no frame was tracked')
    if not overlaps:
        raise ParameterError(
            f'{case.input}: none of {result.frames} frames has a reference mask; {masks.sample()}, the last frame is '
            f'{frame.name!r} with the stamp {frame.stamp_ns} ns'
        )
    result.compared = len(overlaps)
    result.objects = score(overlaps, case.reference.objects, case.reference.min_area)
    if not result.objects:
        raise ParameterError(
            f'{case.input}: no frame can be compared; none of {len(overlaps)} frames with a reference mask comes after '
            f'the seeds and shows an object of {case.reference.min_area} px or more'
        )
    result.figures = figures_of(result.objects) | measured
    result.figures |= {'tracked_frames': result.frames, 'compared_frames': result.compared}
    result.figures |= {name: float(np.percentile(values, 95)) for name, values in times.items() if values}
    result.notes += removals.notes[:5] + notes
    if case.allow_damage:
        result.notes += damages
    else:
        result.damage = '; '.join(damages)
    result.tiles = worst.tiles if worst is not None else []


def _reference_mask(masks: Masks, void_value: VoidValue, frame: FrameResult) -> np.ndarray | None:
    mask = masks.read(frame.name, frame.index, frame.stamp_ns)
    if mask is None:
        return None
    if mask.shape != frame.labels.shape:
        raise FrameError(
            f'frame {frame.name}: the reference mask is {mask.shape[1]}×{mask.shape[0]} px, the frame '
            f'{frame.labels.shape[1]}×{frame.labels.shape[0]} px; they must have the same size'
        )
    return void_value.normalized(mask)
