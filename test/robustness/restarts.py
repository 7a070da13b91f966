# SPDX-License-Identifier: MIT
"""Trial `restarts`: camera, consumer and node are killed in turn, and masks must return."""

from __future__ import annotations

import base64
import json
import random
import signal
import statistics
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import node_harness as robots
import numpy as np
from tqdm import tqdm

from robustness import processes
from robustness.footage import DECOY, OBJECT, RIGHT_IOU, Footage
from robustness.report import Bar, finish, table

RECOVERY_S = 2.0
PATIENCE_S = 30.0  # then an object counts as not found
KINDS = ('camera', 'consumer', 'node')
SAVED = 'trial'  # name of the memory file


@dataclass
class Event:
    """A kill and the recovery from it."""

    number: int
    killed: str
    signal: str
    memory: str = ''  # of the node: loaded or re-seeded
    ended_s: float = 0.0
    hung: bool = False
    exit_code: int = 0
    start_s: float = 0.0  # from process start to ready
    heard_s: float | None = None  # from ready to the first message: discovery
    recovery_s: float | None = None  # from ready to the first correct mask; None: none
    iou: float | None = None  # IoU of that mask
    identity_changed: bool = False
    note: str = ''


@dataclass
class Heard:
    """Messages of the consumer for one image."""

    stamp_ns: int
    received_ns: int = 0
    labels: np.ndarray | None = None
    objects: list[tuple[int, int, str]] | None = None  # id, label, name


@dataclass
class Stage:
    """The three processes and the state of their images."""

    footage: Footage
    parameters: dict[str, Any]
    rate: float
    folder: Path
    running: dict[str, processes.TrialProcess] = field(default_factory=dict)
    robot: robots.Robot | None = None
    indices: dict[int, int] = field(default_factory=dict)  # stamp → index of the frame
    heard: dict[int, Heard] = field(default_factory=dict)
    identity: tuple[int, str] = (0, '')  # id and name of the object
    lives: int = 0
    judged: list[float] = field(default_factory=list)  # IoU of each mask of the object
    first_ns: int = 0  # stamp of the running camera's first image
    ready_ns: int = 0  # when the latest process was ready
    _camera: processes.Tail | None = None
    _consumer: processes.Tail | None = None

    # --- processes

    def start(self, kind: str) -> float:
        """Start a process and wait until it is ready; returns the seconds."""
        begun = time.monotonic()
        self.lives += 1
        log = self.folder / f'{kind}_{self.lives}.log'
        if kind == 'camera':
            self.running[kind] = processes.camera(self.footage.folder, log, self.rate)
            self._camera = processes.Tail(log)
            before = len(self.indices)
            self._wait(lambda: len(self.indices) > before, 'the camera', robots.START_S)
            self.first_ns = list(self.indices)[before]
        elif kind == 'consumer':
            self.running[kind] = processes.consumer(log)
            self._consumer, self.ready_ns = processes.Tail(log), 0
            self._wait(lambda: self.ready_ns, 'the consumer', robots.START_S)
        else:
            self.running[kind] = processes.node(self.parameters)
            self._meet()
            self.running[kind].says('active: waiting for images', robots.START_S)
        self.ready_ns = time.time_ns()
        return time.monotonic() - begun

    def _meet(self) -> None:
        if self.robot is not None:
            self.robot.close()
        self.robot = processes.operator()

    def end(self, kind: str, sign: signal.Signals) -> processes.Ending:
        """Kill a process or stop it by SIGINT."""
        ending = self.running.pop(kind).end(sign)
        self.read()  # its last lines
        return ending

    def close(self) -> None:
        """Stop all processes."""
        for process in self.running.values():
            process.close()
        if self.robot is not None:
            self.robot.close()

    def _wait(self, condition: Any, what: str, seconds: float) -> Any:
        def looked() -> Any:
            self.read()
            return condition()

        return robots.wait_until(looked, what, seconds)

    # --- messages

    def read(self) -> None:
        """Read the output of camera and consumer."""
        for line in self._camera.read() if self._camera else ():
            stamp, index = map(int, line.split())
            self.indices[stamp] = index
        for line in self._consumer.read() if self._consumer else ():
            kind, now, *rest = json.loads(line)
            if kind == 'listening':
                self.ready_ns = now
                continue
            entry = self.heard.setdefault(rest[0], Heard(rest[0]))
            entry.received_ns = max(entry.received_ns, now)
            if kind == 'labels':
                _, height, width, packed = rest
                data = zlib.decompress(base64.b64decode(packed))
                entry.labels = np.frombuffer(data, np.uint8).reshape(height, width)
            else:
                entry.objects = [tuple(item) for item in rest[1]]

    def masks(self) -> list[tuple[Heard, float, bool]]:
        """Judge complete images: IoU of the object, and whether its identity is the known one."""
        done = [stamp for stamp, entry in self.heard.items() if _whole(entry) and stamp in self.indices]
        found = []
        for stamp in sorted(done):
            entry = self.heard.pop(stamp)
            assert entry.labels is not None
            assert entry.objects is not None
            known = {(number, name): label for number, label, name in entry.objects}
            label = known.get(self.identity)
            iou = self.footage.iou(self.indices[stamp], entry.labels == label) if label else 0.0
            found.append((entry, iou, label is not None or not known))
        return found

    # --- the operator

    def seed(self) -> None:
        """Seed the object by the ground truth of a recent image, like a slow segmenter."""
        robot, decoy = self.robot, f'decoy {self.lives}'
        assert robot is not None
        name = f'thing {self.lives}'
        end = time.monotonic() + PATIENCE_S
        while True:
            self.read()
            stamp, index = list(self.indices.items())[-1]
            seeds = (
                robots.mask_seed(self.footage.mask(index, DECOY), decoy),
                robots.mask_seed(self.footage.mask(index, OBJECT), name),
            )
            answer = robot.seed(*seeds, stamp=_time(stamp))
            if answer.success:
                break
            if time.monotonic() > end:
                raise RuntimeError(f'the node cannot be seeded: {answer.message}')
            time.sleep(0.02)  # that image did not reach the node; the next one may
        self.identity = (answer.ids[1], name)
        # so that a fresh node would not assign the same id
        robot.remove(answer.ids[0])

    def forget(self) -> None:
        """Call ~/reset, so that a remaining object is not mistaken for the re-seeded one."""
        assert self.robot is not None
        assert self.robot.reset().success

    def memory(self, service: str) -> None:
        """Call ~/save_memory or ~/load_memory."""
        assert self.robot is not None
        answer = getattr(self.robot, service)(SAVED)
        if not answer.success:
            raise RuntimeError(f'{service}: {answer.message}')

    def recover(self, event: Event) -> None:
        """Wait for the first correct mask since the process was ready."""
        begun, end = self.ready_ns, time.monotonic() + PATIENCE_S
        fresh = self.first_ns if event.killed == 'camera' else 0  # the node may still process an older image
        while time.monotonic() < end:
            self.read()
            for entry, iou, same in self.masks():
                if entry.received_ns < begun or entry.stamp_ns < fresh:
                    continue
                if event.heard_s is None:
                    event.heard_s = (entry.received_ns - begun) / 1e9
                event.identity_changed |= not same
                if iou >= RIGHT_IOU and event.recovery_s is None:
                    event.recovery_s, event.iou = (entry.received_ns - begun) / 1e9, iou
            if event.recovery_s is not None:
                return
            time.sleep(0.01)
        event.note = f'no right mask within {PATIENCE_S:g} s'

    def watch(self, seconds: float) -> None:
        """Judge the masks of an undisturbed period."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            self.judged += [iou for _, iou, _ in self.masks()]
            time.sleep(0.02)


def order(times: int, chance: random.Random) -> list[str]:
    """Draw the killed processes, each of the three equally often."""
    kinds: list[str] = []
    while len(kinds) < times:
        kinds += chance.sample(KINDS, len(KINDS))
    return kinds[:times]


def strike(stage: Stage, event: Event, *, load: bool) -> list[str]:
    """Kill, restart, recover; returns the faults that the process printed."""
    if event.killed == 'node':
        event.memory = 'loaded' if load else 'seeded again'
        if load:
            stage.memory('save_memory')
    ending = stage.end(event.killed, signal.Signals[event.signal])
    event.ended_s, event.hung, event.exit_code = ending.seconds, ending.hung, ending.code
    if ending.hung:
        print(f'\n{event.killed} did not end on SIGINT; where its threads are:\n{processes.tail_of(ending.output)}')
    event.start_s = stage.start(event.killed)
    ready = stage.ready_ns
    if event.killed == 'node':
        if load:
            stage.memory('load_memory')
        else:
            stage.seed()
    stage.ready_ns = ready
    stage.recover(event)
    return processes.faults_of(ending.output) if event.killed == 'node' and not ending.hung else []


def run(args: Any) -> int:
    """Run the trial; returns the exit code."""
    chance = random.Random(args.seed)
    loads = [number % 2 == 0 for number in range(args.times)]
    chance.shuffle(loads)
    events: list[Event] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix='xmem_restarts_') as name:
        folder = Path(name)
        parameters = {
            'device': args.device,
            'size': args.size,
            'max_objects': 3,
            'memory_folder': str(folder / 'memories'),
        }
        stage = Stage(Footage(folder / 'frames'), parameters, args.rate, folder)
        try:
            for kind in ('camera', 'node', 'consumer'):
                stage.start(kind)
            stage.seed()
            first = Event(0, '', '')
            stage.recover(first)
            if first.recovery_s is None:
                raise SystemExit(f'the object is not followed at all:\n{stage.running["node"].output}')
            half = iter(loads)
            for number, kind in enumerate(tqdm(order(args.times, chance), unit='kill', mininterval=5), 1):
                stage.watch(chance.uniform(0.2, 1.0))
                event = Event(number, kind, chance.choice(('SIGKILL', 'SIGINT')))
                load = kind == 'node' and next(half)
                faults += strike(stage, event, load=load)
                events.append(event)
                if event.recovery_s is None or event.identity_changed:
                    print(f'\n{event}\n{processes.tail_of(stage.running["node"].output, 12)}')
                    stage.forget()  # the rest is judged separately
                    stage.seed()
            stage.watch(1.0)
            for kind in list(stage.running):
                ending = stage.end(kind, signal.SIGINT)
                last = Event(args.times + 1, kind, 'SIGINT', note='at the end')
                last.ended_s, last.hung, last.exit_code = ending.seconds, ending.hung, ending.code
                if ending.hung:
                    print(f'{kind} did not end on SIGINT:\n{processes.tail_of(ending.output)}')
                events.append(last)
                faults += processes.faults_of(ending.output) if kind == 'node' and not ending.hung else []
        finally:
            stage.close()
    return report(args, events, faults, stage.judged)


def report(args: Any, events: list[Event], faults: list[str], judged: list[float]) -> int:
    """Print table and bars, write the JSON."""
    restarts = [event for event in events if not event.note.startswith('at the end')]
    groups: dict[str, list[Event]] = {}
    for event in restarts:
        groups.setdefault(f'{event.killed}, {event.memory}' if event.memory else event.killed, []).append(event)
    rows = []
    for name, group in [*sorted(groups.items()), ('all', restarts)]:
        recoveries = [event.recovery_s for event in group if event.recovery_s is not None]
        rows.append(
            [
                name,
                len(group),
                sum(value <= RECOVERY_S for value in recoveries),
                statistics.median(recoveries) if recoveries else None,
                max(recoveries, default=None),
                max((event.heard_s for event in group if event.heard_s is not None), default=None),
                sum(event.identity_changed for event in group),
                max((event.ended_s for event in group if event.signal == 'SIGINT'), default=None),
            ]
        )
    head = (
        'killed',
        'times',
        'right in 2 s',
        'median s',
        'longest s',
        'connecting s',
        'ids changed',
        'longest SIGINT s',
    )
    print(table(head, rows))
    right = sum(iou >= RIGHT_IOU for iou in judged)
    print(f'between the kills {right} of {len(judged)} masks were right (IoU ≥ {RIGHT_IOU:g})')
    for line in faults[:20]:
        print(f'node: {line}')
    asked = [event for event in events if event.signal == 'SIGINT']
    longest = max((PATIENCE_S if event.recovery_s is None else event.recovery_s for event in restarts), default=0.0)
    bars = [
        Bar('longest recovery (s)', longest, RECOVERY_S),
        Bar('ids or names that changed', sum(event.identity_changed for event in restarts)),
        Bar(f'did not end on SIGINT within {processes.END_S:g} s', sum(event.hung for event in asked)),
        Bar('exit codes but 0 after SIGINT', sum(event.exit_code != 0 for event in asked if not event.hung)),
        Bar('faults in the output of the node', len(faults)),
    ]
    result = {
        'trial': 'restarts',
        'seed': args.seed,
        'times': args.times,
        'rate': args.rate,
        'size': args.size,
        'right_between': [right, len(judged)],
        'faults': faults,
        'rows': [dict(zip(head, row, strict=True)) for row in rows],
        'events': [asdict(event) for event in events],
    }
    return finish(result, bars, args.json)


def _whole(entry: Heard) -> bool:
    return entry.labels is not None and entry.objects is not None


def _time(stamp: int) -> Any:
    from builtin_interfaces.msg import Time

    return Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
