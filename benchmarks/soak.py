# SPDX-License-Identifier: MIT
"""Long run with changing objects: memory, step time and ids must stay stable.

    make bench RUN=soak BENCH='--frames 100000 --json soak.json'   the tracker
    make bench RUN=soak BENCH='--size 96x128 --json soak.json'     images of one size
    make bench RUN=soak BENCH='--node --json soak_node.json'       the real node, over DDS

Objects are added, corrected and removed at random (seeded), the image size changes unless `--size`
is given, and the clock jumps. At the end the tracker alternates with a fresh one that has as many
objects and full stores. Exit code 1 if a bar is missed:

- resident memory at the end at most 1.02 times that after a fifth of the frames (5000 at most),
- median step at most 1.05 times that of the fresh tracker,
- no exception, no lost id.

A plot is written beside FILE.
Needs `pip install '.[benchmarks]'`.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from xmem_ros.atomic import write_text
from xmem_ros.threads import wait_asleep

wait_asleep()

import numpy as np
from tqdm import tqdm

try:
    import psutil
except ImportError:
    sys.exit("psutil is not installed: pip install '.[benchmarks]'")

from xmem_ros.demo.scene import PERIOD, RenderedScene
from xmem_ros.tracker import Tracker, TrackerConfig

SIZES = ((72, 128), (72, 96), (96, 128))  # H×W px of images; the comparison uses the first
SIDE = 64  # working size, px
MOST = 5  # simultaneous objects
CHANCES = {'add': 0.012, 'correct': 0.01, 'remove': 0.01, 'size': 0.001, 'jump': 0.001}
RSS_BAR, TIME_BAR = 1.02, 1.05
COMPARED = 600  # frames on which the old and the fresh tracker alternate


class Driver(Protocol):
    """Interface to a tracker in this process or in the node."""

    def step(self, frame: np.ndarray, time: float) -> tuple[list[int], float]:
        """Track a frame; returns ids and milliseconds."""

    def seed(self, frame: np.ndarray, masks: dict[str | int, np.ndarray]) -> list[int]:
        """Seed or correct objects on the newest frame; returns their ids."""

    def remove(self, ids: list[int]) -> None:
        """Remove objects."""

    def full(self) -> bool:
        """Whether long-term memory is full."""

    def rss(self) -> int:
        """Return the resident memory of the tracking process [bytes]."""

    def memory_bytes(self) -> int:
        """Return the size of the memory stores [bytes]."""


class InProcess:
    """A tracker in this process."""

    def __init__(self, elements: int):
        from xmem_ros.memory.config import MemoryConfig

        self.elements = elements
        config = TrackerConfig(size=SIDE, max_objects=MOST, memory=MemoryConfig(long_term_elements=elements))
        self.tracker = Tracker.from_weights('compact', device='cpu', config=config)

    def step(self, frame: np.ndarray, time: float) -> tuple[list[int], float]:
        result, spent = timed(lambda: self.tracker.step(frame, time=time))
        return [item.id for item in result.objects], spent

    def seed(self, frame: np.ndarray, masks: dict[str | int, np.ndarray]) -> list[int]:
        return self.tracker.seed(frame, masks)

    def remove(self, ids: list[int]) -> None:
        self.tracker.remove(ids)

    def full(self) -> bool:
        return self.tracker.memory_elements['long_term'] >= self.elements

    def rss(self) -> int:
        return psutil.Process().memory_info().rss

    def memory_bytes(self) -> int:
        return self.tracker.memory_bytes


class BehindNode:
    """The real node in its own process; each step waits for the objects of its image."""

    def __init__(self, robot: Any, elements: int):
        from xmem_ros.msg import TrackedObjectArray

        self.robot, self.elements = robot, elements
        self.process = psutil.Process(robot.process.process.pid)
        self.received = robot.listen(TrackedObjectArray, '~/objects')
        robot.wait_matched('~/objects')

    def step(self, frame: np.ndarray, time: float) -> tuple[list[int], float]:
        from node_harness import wait_until

        from xmem_ros.conversions.objects import seconds_of

        stamp = 1_000_000_000 + round(time * 1e9)
        sent = self.robot.show(frame, stamp_ns=stamp)
        wait_until(lambda: self.received and self.received[-1].header == sent.header, 'objects of an image', 60)
        found = self.received[-1]
        del self.received[:-1]
        return [item.id for item in found.objects], seconds_of(found.processing_time) * 1e3

    def seed(self, frame: np.ndarray, masks: dict[str | int, np.ndarray]) -> list[int]:
        from node_harness import mask_seed

        del frame  # the node seeds on the newest one
        seeds = [
            mask_seed(mask, '' if isinstance(key, int) else key, object_id=key if isinstance(key, int) else 0)
            for key, mask in masks.items()
        ]
        answer = self.robot.seed(*seeds)
        if not answer.success:
            raise RuntimeError(answer.message)
        return list(answer.ids)

    def remove(self, ids: list[int]) -> None:
        answer = self.robot.remove(*ids)
        if not answer.success:
            raise RuntimeError(answer.message)

    def _diagnostics(self) -> dict[str, str]:
        return self.robot.diagnostics(lambda values: 'memory (bytes)' in values, 'memory')

    def full(self) -> bool:
        return int(self._diagnostics()['long_term (positions)']) >= self.elements

    def rss(self) -> int:
        return self.process.memory_info().rss

    def memory_bytes(self) -> int:
        return int(self._diagnostics()['memory (bytes)'])


def timed(work: Any) -> tuple[Any, float]:
    """Return a result and its time [ms]."""
    begun = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - begun) * 1e3


@dataclass
class Record:
    """Measurements of a run."""

    every: int
    rss: list[tuple[int, int]] = field(default_factory=list)  # frame, bytes
    milliseconds: list[float] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHANCES, 0))
    ids_lost: int = 0
    exceptions: list[str] = field(default_factory=list)


class World:
    """Rendered images with random events; the same for every driver, given a seed.

    Arguments:
        seed: seed of the events.
        sizes: H×W px of the images.
    """

    def __init__(self, seed: int, sizes: tuple[tuple[int, int], ...] = SIZES):
        self.random = np.random.default_rng(seed)
        scenes = [RenderedScene(size, PERIOD, MOST, seed=0) for size in sizes]
        self.clips = [[scene[i] for i in range(PERIOD)] for scene in scenes]
        self.size, self.number, self.time = 0, 0, 0.0
        self.known: dict[int, int] = {}  # id → value in the ground truth

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the next frame and its ground truth."""
        self.number += 1
        self.time += 1 / 30
        return self.clips[self.size][self.number % PERIOD]

    def apply_events(self, driver: Driver, frame: np.ndarray, truth: np.ndarray, record: Record) -> None:
        """Apply random events after a frame."""
        draw = self.random.random(len(CHANCES))
        wanted = [name for (name, chance), value in zip(CHANCES.items(), draw, strict=True) if value < chance]
        seen = [int(value) for value in np.unique(truth) if value and (truth == value).sum() >= 20]
        new = [value for value in seen if value not in self.known.values()]
        old = [key for key, value in self.known.items() if value in seen]
        if ('add' in wanted or not self.known) and new and len(self.known) < MOST:
            value = int(self.random.choice(new))
            (key,) = driver.seed(frame, {f'thing {value}': truth == value})
            self.known[key] = value
            record.events['add'] += 1
        elif 'correct' in wanted and old:
            key = int(self.random.choice(old))
            driver.seed(frame, {key: truth == self.known[key]})
            record.events['correct'] += 1
        elif 'remove' in wanted and len(self.known) > 1:
            key = int(self.random.choice(list(self.known)))
            driver.remove([key])
            del self.known[key]
            record.events['remove'] += 1
        if 'size' in wanted:
            self.size = int(self.random.integers(len(self.clips)))
            record.events['size'] += 1
        if 'jump' in wanted:
            self.time = max(self.time + float(self.random.uniform(-600, 600)), 0.0)
            record.events['jump'] += 1


def soak(driver: Driver, world: World, frames: int) -> Record:
    """Run a driver for a number of frames."""
    record = Record(max(frames // 200, 1))
    bar = tqdm(range(frames), unit='frame', mininterval=10)
    for number in bar:
        frame, truth = world.next()
        try:
            ids, spent = driver.step(frame, world.time)
            if set(ids) != set(world.known):
                record.ids_lost += len(set(world.known) - set(ids)) or 1
            record.milliseconds.append(spent)
            record.objects.append(len(ids))
            world.apply_events(driver, frame, truth, record)
        except Exception as error:
            record.exceptions.append(f'frame {number}: {type(error).__name__}: {error}')
            bar.write(record.exceptions[-1])
            if len(record.exceptions) > 20:
                break
        if number % record.every == 0 or number == frames - 1:
            record.rss.append((number, driver.rss()))
        if number in (min(50, frames - 1), frames // 2, frames - 1):
            name = 'start' if number <= 50 else 'middle' if number <= frames // 2 else 'end'
            record.memory_bytes[name] = driver.memory_bytes()
    return record


def compare(old: Driver, fresh: Driver, world: World) -> dict[str, Any]:
    """Alternate old and fresh tracker with equal objects, seeds and full stores; medians in ms."""
    world.size = 0
    twins: dict[int, int] = {}
    order = list(world.known.items())
    while len(twins) < len(order):
        frame, truth = world.next()
        old.step(frame, world.time)
        fresh.step(frame, world.time)
        key, value = order[len(twins)]
        if (truth == value).sum() >= 20:
            (twins[key],) = fresh.seed(frame, {f'thing {value}': truth == value})
    # as many corrections, since they stay in memory
    for key, value in [*order, *order]:
        for _ in range(PERIOD):
            frame, truth = world.next()
            old.step(frame, world.time)
            fresh.step(frame, world.time)
            if (truth == value).sum() >= 20:
                old.seed(frame, {key: truth == value})
                fresh.seed(frame, {twins[key]: truth == value})
                break
    for number in tqdm(range(20_000), desc='filling the stores', unit='frame', mininterval=10):
        frame, _ = world.next()
        old.step(frame, world.time)
        fresh.step(frame, world.time)
        if number % 200 == 199 and old.full() and fresh.full():
            break
    else:
        raise SystemExit('long-term memory did not fill: give fewer --elements')
    times: dict[str, list[float]] = {'old': [], 'fresh': []}
    for number in range(COMPARED):
        frame, _ = world.next()
        pair = [('old', old), ('fresh', fresh)]
        for name, driver in pair if number % 2 else reversed(pair):
            times[name].append(driver.step(frame, world.time)[1])
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        'objects': len(order),
        'old_median_ms': medians['old'],
        'fresh_median_ms': medians['fresh'],
        'ratio': medians['old'] / medians['fresh'],
    }


def report(record: Record, comparison: dict[str, Any], frames: int, what: str, elements: int) -> dict[str, Any]:
    """Collect all figures and bars for JSON."""
    baseline_frame = min(frames // 5, 5000)
    last = record.rss[-1][1]
    baseline = next((value for number, value in record.rss if number >= baseline_frame), last)
    middle = next((value for number, value in record.rss if number >= frames // 2), last)
    end = statistics.median(value for _, value in record.rss[-5:])
    tenths = np.array_split(np.array(record.milliseconds), 10)
    counts = np.array_split(np.array(record.objects), 10)
    bars = {
        'rss_end_over_baseline': {'value': end / baseline, 'at_most': RSS_BAR, 'passed': end / baseline <= RSS_BAR},
        'step_old_over_fresh': {
            'value': comparison['ratio'],
            'at_most': TIME_BAR,
            'passed': comparison['ratio'] <= TIME_BAR,
        },
        'exceptions': {'value': len(record.exceptions), 'at_most': 0, 'passed': not record.exceptions},
        'ids_lost': {'value': record.ids_lost, 'at_most': 0, 'passed': record.ids_lost == 0},
    }
    return {
        'what': what,
        'frames': frames,
        'long_term_elements': elements,
        'baseline_frame': baseline_frame,
        'rss_bytes': {'start': record.rss[0][1], 'baseline': baseline, 'middle': middle, 'end': end},
        'memory_bytes': record.memory_bytes,
        'median_ms_by_tenth': [float(np.median(part)) for part in tenths],
        'mean_objects_by_tenth': [float(part.mean()) for part in counts],
        'events': record.events,
        'ids_lost': record.ids_lost,
        'exceptions': record.exceptions,
        'comparison': comparison,
        'bars': bars,
        'rss_series': record.rss,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot resident memory and step times."""
    try:
        import matplotlib as mpl

        mpl.use('Agg')
        from matplotlib import pyplot as plt
    except ImportError:
        print(f'no plot, matplotlib is not installed (pip install matplotlib); the results are in {path.stem}.json')
        return
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout='constrained')
    numbers, rss = zip(*result['rss_series'], strict=True)
    above.plot(numbers, [value / 1e6 for value in rss])
    above.axhline(result['rss_bytes']['baseline'] * RSS_BAR / 1e6, linestyle='--', color='tab:red', label='bar')
    above.set(ylabel='resident memory [MB]', title=f'{result["what"]}, {result["frames"]} frames')
    above.legend()
    middles = (np.arange(10) + 0.5) * result['frames'] / 10
    per_object = np.array(result['median_ms_by_tenth'])
    below.bar(middles, per_object, width=result['frames'] / 11)
    below.set(xlabel='frame', ylabel='median step [ms]')
    objects = below.twinx()
    objects.plot(middles, result['mean_objects_by_tenth'], 'o-', color='tab:orange')
    objects.set(ylabel='objects, mean', ylim=(0, MOST))
    figure.savefig(path, dpi=110)
    print(f'plot: {path}')


@contextlib.contextmanager
def drivers(node: bool, elements: int) -> Iterator[tuple[Driver, Driver]]:
    """Make the driver of the long run and the fresh one."""
    if not node:
        yield InProcess(elements), InProcess(elements)
        return
    from node_harness import running

    parameters = {
        'device': 'cpu',
        'size': SIDE,
        'max_objects': MOST,
        'memory.long_term_elements': elements,
        'queue': 'all',
        'no_image_warning_after': 0.0,
    }
    with running(parameters) as robot, running(parameters) as other:
        yield BehindNode(robot, elements), BehindNode(other, elements)


def image_size(text: str) -> tuple[int, int]:
    """Parse HxW, as in 96x128."""
    height, _, width = text.partition('x')
    size = (int(height), int(width))
    if not all(32 <= side <= 4096 for side in size):
        raise argparse.ArgumentTypeError(f'{text}: give HxW with 32 to 4096 px each, as in 96x128')
    return size


def main() -> int:
    """Run, print and write the results; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=int, default=100_000, help='length of the run (default: %(default)s)')
    parser.add_argument('--node', action='store_true', help='the real node over DDS instead of the tracker')
    parser.add_argument('--elements', type=int, default=10_000, help='size of long-term memory (default: %(default)s)')
    parser.add_argument('--threads', type=int, help='threads of torch (default: all cores)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the events (default: %(default)s)')
    parser.add_argument('--size', type=image_size, metavar='HxW', help='one image size, px (default: changing sizes)')
    parser.add_argument('--json', type=Path, required=True, metavar='FILE', help='write the results to this file')
    args = parser.parse_args()
    if args.frames < 100:
        parser.error(f'--frames is {args.frames}: give at least 100')
    if args.node:  # a separate graph: another node xmem would respond too
        os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
        os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    with drivers(args.node, args.elements) as (old, fresh):
        world = World(args.seed, (args.size,) if args.size else SIZES)
        record = soak(old, world, args.frames)
        result = report(
            record, compare(old, fresh, world), args.frames, 'node' if args.node else 'tracker', args.elements
        )
    write_text(args.json, json.dumps(result, indent=1) + '\n')
    for name in ('rss_bytes', 'memory_bytes', 'median_ms_by_tenth', 'mean_objects_by_tenth', 'events', 'comparison'):
        print(f'{name}: {json.dumps(result[name])}')
    for line in record.exceptions:
        print(line)
    draw(result, args.json.with_suffix('.png'))
    for name, bar in result['bars'].items():
        print(f'{"ok    " if bar["passed"] else "FAILED"} {name}: {bar["value"]:.4g} (at most {bar["at_most"]})')
    return 0 if all(bar['passed'] for bar in result['bars'].values()) else 1


if __name__ == '__main__':
    sys.exit(main())
