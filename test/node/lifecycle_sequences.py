# SPDX-License-Identifier: MIT
"""Random sequences of transitions, requests and images, each ended by a signal at a random moment.

    python test/node/lifecycle_sequences.py --count 50 --seed 1

Each sequence starts a node, in half of the cases one that exports ONNX models while it is
configured. Requests are not awaited, so that the signal also strikes in the middle of a
configuration, a seed or a save.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import conftest  # noqa: F401 (claims a ROS domain)

import node_harness as robots
import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_harness import Robot, box_seed, mask_seed, wait_until

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.srv import LoadMemory, ResetTracker, SaveMemory, SeedObjects

FRAME, TRUTH = RenderedScene((240, 320), objects=2)[0]
SLOW_START = {'engine': 'onnxruntime', 'prepare': '480x640'}
TRANSITIONS = (
    *(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE) * 3,  # else it is rarely active
    *(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP) * 2,
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
)
DEADLINE_S = 20.0  # for an answer on a busy machine; the sequence reports what it took


@dataclass
class Outcome:
    """What came of a sequence."""

    steps: list[str] = field(default_factory=list)
    state: str = ''  # before the signal
    answer_s: float = 0.0  # longest time of an answer of ~/get_state
    end_s: float = 0.0  # from the signal to the end of the process
    faults: list[str] = field(default_factory=list)


def run(chance: random.Random, folder: Path) -> Outcome:
    """Run one sequence; `folder` is for the node's files."""
    outcome = Outcome()
    slow, autostart, early = chance.random() < 0.5, chance.random() < 0.5, chance.random() < 0.1
    parameters = {
        'device': 'cpu',
        'size': 120,
        'autostart': autostart,
        'memory_folder': str(folder),
        'load_on_start': chance.choice(['', 'kept']),
        'save_period': chance.choice([0.0, 0.2]),
        'seeder': chance.choice(['bundled', 'grabcut']),
        **(SLOW_START if slow else {}),
    }
    outcome.steps.append(f'start{" slowly" if slow else ""}{" by itself" if autostart else ""}')
    kind = robots.NodeProcess if early else robots.QuickNodeProcess
    process = kind(parameters, ['-r', '__ns:=/random'])
    robot = Robot('/random')
    robot.process = process
    try:
        if early:
            _wait_for_handlers(process.process.pid)
            time.sleep(chance.uniform(0, 1))
            outcome.state = 'starting'
        else:
            if autostart and not slow:
                process.says('active: waiting', robots.START_S)
                outcome.steps.append('wait')
            _act(chance, robot, outcome)
        _end(chance, robot, outcome)
    finally:
        with contextlib.suppress(AssertionError):
            process.close()
        robot.close()
    return outcome


def _wait_for_handlers(pid: int) -> None:
    """Wait until a process handles SIGTERM: Python has begun with the node's first module."""

    def caught() -> bool:
        status = Path(f'/proc/{pid}/status').read_text()
        return bool(int(status.partition('SigCgt:')[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)

    wait_until(caught, 'a handler of SIGTERM')


def _act(chance: random.Random, robot: Robot, outcome: Outcome) -> None:
    get_state(robot, outcome)
    steps = _steps(chance, robot)
    for _ in range(chance.randint(0, 8)):
        name = chance.choice(list(steps))
        outcome.steps.append(name)
        steps[name]()
        time.sleep(chance.choice([0.0, 0.05, 0.3, 1.0]))
    outcome.state = get_state(robot, outcome)
    name = chance.choice(list(steps))  # the signal strikes in the middle of this
    outcome.steps.append(name)
    steps[name]()
    time.sleep(chance.choice([0.0, 0.01, 0.1]))


def _steps(chance: random.Random, robot: Robot) -> dict[str, Callable[[], Any]]:
    def change() -> None:
        request = ChangeState.Request()
        request.transition.id = chance.choice(TRANSITIONS)
        robot.request(ChangeState, '~/change_state', request)

    def seed(*seeds: Any) -> Any:
        return lambda: robot.request(SeedObjects, '~/seed', SeedObjects.Request(seeds=list(seeds)))

    def transition(name: str) -> Any:
        return lambda: robot.request_transition(name)

    return {
        'change state': change,
        'configure': transition('configure'),
        'activate': transition('activate'),
        'show': lambda: [robot.show(FRAME) for _ in range(5)],
        'seed a mask': seed(mask_seed(TRUTH == 1)),
        'seed a box': seed(box_seed(40, 40, 200, 160)),
        'seed many boxes': seed(*(box_seed(10 * i, 20, 100, 160) for i in range(8))),
        'save': lambda: robot.request(SaveMemory, '~/save_memory', SaveMemory.Request(name='mine')),
        'load': lambda: robot.request(LoadMemory, '~/load_memory', LoadMemory.Request(name='mine')),
        'reset': lambda: robot.request(ResetTracker, '~/reset', ResetTracker.Request()),
    }


def get_state(robot: Robot, outcome: Outcome) -> str:
    """Return the lifecycle state, and note how long the answer took."""
    robot.request(GetState, '~/get_state', GetState.Request())  # waits for the service
    begun = time.monotonic()
    state = robot.call(GetState, '~/get_state', GetState.Request(), DEADLINE_S).current_state.label
    outcome.answer_s = max(outcome.answer_s, time.monotonic() - begun)
    return str(state)


def _end(chance: random.Random, robot: Robot, outcome: Outcome) -> None:
    sign = chance.choice([signal.SIGINT, signal.SIGTERM])
    outcome.steps.append(sign.name)
    begun = time.monotonic()
    code = robot.process.interrupt(sign)
    outcome.end_s = time.monotonic() - begun
    if code != 0:
        outcome.faults.append(f'exit code {code}')
    if 'Traceback' in robot.process.output or 'most recent call' in robot.process.output:
        outcome.faults.append(f'traceback:\n{robot.process.output}')
    name = ('xmem', robot.namespace)
    try:
        wait_until(lambda: name not in robot.node.get_node_names_and_namespaces(), 'the node to be gone', 10)
    except AssertionError as error:
        outcome.faults.append(str(error))


def main() -> int:
    """Run sequences and print what came of them; return the exit code."""
    parser = argparse.ArgumentParser(description='Run random lifecycle and signal sequences.')
    parser.add_argument('--count', type=int, default=50, help='number of sequences (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=1, help='of the first sequence (default: %(default)s)')
    options = parser.parse_args()
    outcomes = []
    for number in range(options.seed, options.seed + options.count):
        with tempfile.TemporaryDirectory() as folder:
            os.environ['XMEM_ROS_ONNX'] = f'{folder}/onnx'
            outcome = run(random.Random(number), Path(folder))
        outcomes.append(outcome)
        times = f'{outcome.state}, answer {outcome.answer_s:.2f} s, end {outcome.end_s:.2f} s'
        print(f'{number}: {", ".join(outcome.steps)}: {times} {"; ".join(outcome.faults)}', flush=True)
    for name in ('answer_s', 'end_s'):
        values = [getattr(outcome, name) for outcome in outcomes]
        print(f'{name}: median {np.median(values):.2f}, longest {max(values):.2f}')
    faulty = sum(bool(outcome.faults) for outcome in outcomes)
    print(f'{faulty} of {len(outcomes)} faulty')
    return 1 if faulty else 0


if __name__ == '__main__':
    sys.exit(main())
