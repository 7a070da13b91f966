# SPDX-License-Identifier: MIT
"""Trial `age`: a camera faster than the tracker; age of results, and complete image counters.

Run as a program, this is the node with a `Tracker.step` of a given duration.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NOTES = 'XMEM_ROS_STEP_NOTES'  # variable: file for the times of each step, own and total [ns]
STEP = 'XMEM_ROS_STEP_NS'  # variable: duration of a step [ns]
SMALLER = (240, 160, 120, 96, 64)  # px; fallback sizes for slow machines
WARM_UP = 10  # frames
DELIVERY_MS = 20  # an image waits for one step, takes one, and its labels travel to the consumer


def as_node() -> int:
    """Run the node with steps that sleep up to the given duration."""
    from xmem_ros.node import main as node_main
    from xmem_ros.tracker import Tracker

    step, wanted = Tracker.step, int(os.environ[STEP])
    with Path(os.environ[NOTES]).open('w', buffering=1) as notes:

        def slow_step(self: Any, *args: Any, **kwargs: Any) -> Any:
            begun = time.monotonic_ns()
            result = step(self, *args, **kwargs)
            own = time.monotonic_ns() - begun
            time.sleep(max(wanted - own, 0) / 1e9)
            print(own, time.monotonic_ns() - begun, file=notes)
            return result

        Tracker.step = slow_step  # type: ignore[method-assign]
        return node_main.main()


class SlowNode:
    """The slowed node and its consumer.

    Arguments:
        folder: folder for files.
        size: working size of the node [px].
        step_ms: duration of a step [ms].
        footage: footage to seed with.
        device: device of the node.
    """

    def __init__(self, folder: Path, size: int, step_ms: float, footage: Any, device: str) -> None:
        import node_harness as robots
        from sensor_msgs.msg import Image

        from robustness import processes
        from xmem_ros.conversions.images import stamp_ns

        self.notes = folder / f'steps_{size}.txt'
        os.environ[NOTES], os.environ[STEP] = str(self.notes), str(round(step_ms * 1e6))
        parameters = {'device': device, 'size': size, 'max_objects': 1, 'diagnostics_period': 0.2}
        self.size, self.received = size, []
        self.node = processes.node(parameters, ('-m', 'robustness.age'))
        self.robot = robots.Robot(processes.NAMESPACE)

        def take(message: Any) -> None:
            now = time.time_ns()
            self.received.append((stamp_ns(message.header.stamp), now))

        self.robot.node.create_subscription(Image, f'{self.robot.prefix}/labels', take, robots.RELIABLE)
        try:
            self.node.says('active: waiting for images', robots.START_S)
            self.robot.wait_matched('~/labels')
            self.robot.wait_camera()
            self._warm_up(footage)
        except BaseException:
            self.close()
            raise

    def _warm_up(self, footage: Any) -> None:
        """Show images until labels arrive, seed, and track some more, one image at a time."""
        import node_harness as robots

        for _ in range(60):
            self._show(footage.frames[0])
            try:
                robots.wait_until(lambda: self.received, 'labels', 1)
                break
            except AssertionError:
                continue
        answer = self.robot.seed(robots.mask_seed(footage.mask(0), 'thing'))
        assert answer.success, answer.message
        for number in range(1, WARM_UP):
            before = len(self.received)
            self._show(footage.frames[number])
            robots.wait_until(lambda before=before: len(self.received) > before, 'labels of an image')

    def _show(self, frame: Any) -> None:
        self.robot.show(frame, stamp_ns=time.time_ns())

    def steps_ms(self) -> list[tuple[float, float]]:
        """Return own and total time of each step [ms]."""
        lines = self.notes.read_text().splitlines()
        return [tuple(int(value) / 1e6 for value in line.split()) for line in lines if len(line.split()) == 2]

    def counts(self, seconds: float = 30.0) -> dict[str, int]:
        """Return the counters of /diagnostics once no image waits."""
        names = ('received', 'tracked', 'dropped', 'waiting', 'invalid', 'lost before the node')
        last: dict[str, int] = {}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            values = self.robot.diagnostics(lambda values: 'received' in values, 'the node')
            now = {name: int(values[name]) for name in names}
            if now == last and not now['waiting'] and len(self.received) >= now['tracked']:
                break
            last = now
        return last

    def close(self) -> Any:
        """Stop the node; returns how it ended."""
        ending = self.node.end()
        self.robot.close()
        return ending


def run(args: Any) -> int:
    """Run the trial; returns the exit code."""
    from robustness import processes
    from robustness.footage import Footage

    with tempfile.TemporaryDirectory(prefix='xmem_age_') as name:
        folder = Path(name)
        footage = Footage(folder / 'frames')
        slow = _fitting(folder, footage, args)
        ending = None
        try:
            figures = _measure(slow, footage, folder, args)
        finally:
            ending = slow.close()
    return _report(args, slow, figures, processes.faults_of(ending.output) + ['hung on SIGINT'] * ending.hung)


def _fitting(folder: Path, footage: Any, args: Any) -> SlowNode:
    """Start the node at the largest size, at most the requested one, that leaves time to sleep."""
    sizes = [args.size, *(size for size in SMALLER if size < args.size)]
    for size in sizes:
        slow = SlowNode(folder, size, args.step, footage, args.device)
        own = sorted(step for step, _ in slow.steps_ms()[2:])
        if own[-2] < 0.6 * args.step or size == sizes[-1]:
            return slow
        print(f'at {size} px a step takes {own[-2]:.0f} ms of its own: trying a smaller size')
        slow.close()
    raise AssertionError


def _measure(slow: SlowNode, footage: Any, folder: Path, args: Any) -> dict[str, Any]:
    import node_harness as robots
    from tqdm import tqdm

    from robustness import processes

    before = slow.counts()
    received_before, steps_before = len(slow.received), len(slow.steps_ms())
    log = processes.Tail(folder / 'camera.log')
    eye = processes.camera(footage.folder, log.path, args.rate)
    try:
        sent = robots.wait_until(log.read, 'the camera', robots.START_S)
        for _ in tqdm(range(round(args.seconds)), unit='s', mininterval=5):
            time.sleep(1)
    finally:
        eye.end()
    sent += log.read()
    after = slow.counts()
    ages = sorted((now - stamp) / 1e6 for stamp, now in slow.received[received_before:])
    return {
        'sent': len(sent),
        'heard': len(ages),
        'ages_ms': ages,
        'steps_ms': slow.steps_ms()[steps_before:],
        **{name: after[name] - before[name] for name in after},
        'unaccounted': after['received'] - after['tracked'] - after['dropped'] - after['waiting'],
        'unheard': after['tracked'] - len(slow.received),
    }


def _report(args: Any, slow: SlowNode, figures: dict[str, Any], faults: list[str]) -> int:
    from robustness.report import Bar, finish, table

    ages, steps = figures.pop('ages_ms'), figures.pop('steps_ms')
    if not ages:
        raise SystemExit('no label image was heard')

    def share(values: list[float], part: float) -> float:
        return sorted(values)[min(int(part * len(values)), len(values) - 1)]

    columns = {
        'age of labels': ages,
        'step in all': [whole for _, whole in steps],
        "step, the machine's own": [own for own, _ in steps],
    }
    head = ('ms', 'median', '95 %', '99 %', 'longest')
    rows = [[name, *(share(values, part) for part in (0.5, 0.95, 0.99, 1.0))] for name, values in columns.items()]
    print(f'at {slow.size} px, {args.rate:g} images a second, a step of {args.step:g} ms')
    print(table(head, rows))
    over = ages[-1] / max(whole for _, whole in steps)
    print(f'the oldest was {over:.2f} times as old as the longest step took')
    print(', '.join(f'{name} {value}' for name, value in figures.items()))
    for line in faults:
        print(f'node: {line}')
    bars = [
        Bar('oldest label image at its consumer (ms)', ages[-1], 2 * args.step + DELIVERY_MS),
        Bar('received − tracked − dropped − waiting', abs(figures['unaccounted'])),
        Bar('tracked − heard by the consumer', abs(figures['unheard'])),
        Bar('faults in the output of the node', len(faults)),
    ]
    result = {
        'trial': 'age',
        'seconds': args.seconds,
        'rate': args.rate,
        'step_ms': args.step,
        'size': slow.size,
        'late_steps': sum(whole > 1.1 * args.step for _, whole in steps),
        'oldest_over_longest_step': over,
        'counts': figures,
        'rows': [dict(zip(head, row, strict=True)) for row in rows],
        'faults': faults,
    }
    return finish(result, bars, args.json)


if __name__ == '__main__':
    sys.exit(as_node())
