# SPDX-License-Identifier: MIT
"""Frame rate as the paper measures it: number of frames over total forward time.

The forward time of a frame runs from its image on the device to its probabilities at the output
size. It excludes reading, decoding, scaling and writing. A few warm-up frames come first.
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
from xmem_ros.weights.checkpoint import load_network
from xmem_ros.weights.files import find_weights

if TYPE_CHECKING:
    from typing import Any

    from xmem_ros.evaluation.settings import Settings


def measure(settings: Settings, *, progress: bool = True) -> dict[str, Any]:
    """Track every sequence in each precision and measure the time; nothing is written or scored.

    Returns:
        `fps` of the first precision, and `speed`: for each precision `fps`, `fps_whole_step` (from
        an image in host memory to labels there), frames, seconds, and the machine.

    Raises:
        XMemError: as `evaluate`.
    """
    if Processes.started() > 1:
        raise ParameterError(
            f'{Processes.started()} processes would slow each other down; measure the frame rate without torchrun'
        )
    network = load_network(find_weights(settings.weights))
    run = settings.runs(network.config)[0]
    sequences = sequences_of(settings, run)
    counts = {sequence.name: len(sequence.check_seeds(ignore_void=settings.ignore_void)) for sequence in sequences}
    rows = []
    for precision in _precisions(settings, pick_device(settings.device)):
        network = load_network(find_weights(settings.weights))  # again, since trackers convert it
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
    """Format the rates, each with its machine."""
    return '\n'.join(
        f'{row["precision"]}: {row["fps"]:.2f} frames/s ({row["fps_whole_step"]:.2f} with scaling of the image and '
        f'labels); {row["frames"]} frames, {row["seconds"]:.1f} s, {row["device_name"]}'
        + (f', {row["threads"]} threads' if 'threads' in row else '')
        + f', torch {row["torch"]}'
        for row in rows
    )


def _precisions(settings: Settings, device: torch.device) -> tuple[str, ...]:
    """Return the precision given, or float32 and AMP: float16 on CUDA, bfloat16 on the CPU."""
    if settings.precision != 'auto':
        return (settings.precision,)
    return ('float32', 'float16' if device.type == 'cuda' else 'bfloat16')
