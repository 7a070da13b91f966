# SPDX-License-Identifier: MIT
"""Frames a second as the paper measures them: all frames over all forward time.

The forward time of a frame goes from its image on the device to its probabilities at the size that is written. Reading,
decoding, scaling the image and writing are outside it, and the first frames of a process are tracked once before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from xmem_ros.errors import ParameterError
from xmem_ros.evaluation.clock import Clock, machine, rate
from xmem_ros.evaluation.processes import Processes
from xmem_ros.evaluation.runner import sequences_of
from xmem_ros.evaluation.tracking import Trackers, track_sequence
from xmem_ros.progress import Bar
from xmem_ros.tracker import pick_device
from xmem_ros.weights.checkpoint import find_weights, load_network

if TYPE_CHECKING:
    from typing import Any

    from xmem_ros.evaluation.settings import Settings


def measure(settings: Settings, *, progress: bool = True) -> dict[str, Any]:
    """Track every sequence, in each precision, and time it; nothing is written or scored.

    Returns:
        `fps` of the first precision, and `speed`: for each precision `fps`, `fps_whole_step` (from an image in the
        host's memory to labels there), frames, seconds, and the machine.

    Raises:
        XMemError: as `evaluate`.
    """
    if Processes.started() > 1:
        raise ParameterError(
            f'{Processes.started()} processes would be timed while they slow each other down; measure frames a second '
            'without torchrun'
        )
    network = load_network(find_weights(settings.weights))
    run = settings.runs(network.config)[0]
    sequences = sequences_of(settings, run)
    counts = {sequence.name: len(sequence.check_seeds(ignore_void=settings.ignore_void)) for sequence in sequences}
    rows = []
    for precision in _precisions(settings, pick_device(settings.device)):
        network = load_network(find_weights(settings.weights))  # anew, as trackers take it over
        trackers = Trackers(network, replace(settings, precision=precision), settings.device)
        clock = Clock()
        with Bar(total=sum(len(s.frames) for s in sequences), unit='frame', disable=not progress) as bar:
            bar.set_description(precision, refresh=False)
            for sequence in sequences:
                tracker = trackers.warm(run, counts[sequence.name], sequence)
                for frame in track_sequence(tracker, sequence, run, settings.ignore_void):
                    clock.add(frame.seconds, frame.step_seconds)
                    bar.update()
        facts = clock.facts()
        rows.append(
            {
                'fps': rate(facts),
                'fps_whole_step': rate(facts, of='step_seconds'),
                **facts,
                **machine(trackers.device, precision),
            }
        )
    return {'fps': rows[0]['fps'], **settings.record(network.config), 'speed': rows}


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Rates as lines of text, with what they were measured on."""
    return '\n'.join(
        f'{row["precision"]}: {row["fps"]:.2f} frames a second ({row["fps_whole_step"]:.2f} with scaling the image and '
        f'taking labels); {row["frames"]} frames, {row["seconds"]:.1f} s, {row["device_name"]}'
        + (f', {row["threads"]} threads' if 'threads' in row else '')
        + f', torch {row["torch"]}'
        for row in rows
    )


def _precisions(settings: Settings, device: torch.device) -> tuple[str, ...]:
    """The one that was asked for, or float32 and AMP: float16 on CUDA, elsewhere bfloat16, which is faster there."""
    if settings.precision != 'auto':
        return (settings.precision,)
    return ('float32', 'float16' if device.type == 'cuda' else 'bfloat16')
