# SPDX-License-Identifier: MIT
"""Trial `fuzz`: malformed requests and images must not affect the tracking of good frames.

Two nodes get the same good frames; one of them also gets all malformed input.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import node_harness as robots
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from robustness import processes
from robustness.footage import DECOY, OBJECT, Footage
from robustness.images import NEGATIVE, good_image, wrong_image
from robustness.report import Bar, finish, table
from robustness.requests import World, Wrong, wrong_request
from xmem_ros.errors import ErrorCode
from xmem_ros.srv import SeedObjects

LONGEST_MESSAGE = 4000  # characters of a readable refusal
BURST = 10  # most malformed inputs between two good frames
SLOW_S = 5.0  # longest time of a refusal
STEP_NS = 1000  # between stamps of malformed images


@dataclass
class Result:
    """Result of a run."""

    transport: str
    requests: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    differing: int = 0  # good frames whose labels differ from those of the calm node
    not_refused: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)  # refused without a reason or with one too long
    slow: list[str] = field(default_factory=list)
    not_counted: list[str] = field(default_factory=list)  # malformed images not counted as invalid
    not_named: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    crashes: int = 0


class Eye:
    """Sends images of a transport to a node and receives its labels."""

    def __init__(self, robot: robots.Robot, transport: str) -> None:
        self.robot, self.transport = robot, transport
        self.publisher = robot.images
        if transport == 'compressed':
            self.publisher = robot.node.create_publisher(
                CompressedImage, f'{robot.namespace}/image/compressed', robots.RELIABLE
            )
        self.labels = robot.listen(Image, '~/labels')
        robots.wait_until(self.publisher.get_subscription_count, 'a subscriber of the images', robots.START_S)
        robot.wait_matched('~/labels')

    def show(self, message: Any, stamp: int | None) -> None:
        """Publish a message, with a stamp [ns] unless it has its own."""
        if stamp is not None:
            message.header.stamp = time_of(stamp)
        self.publisher.publish(message)

    def track(self, frame: np.ndarray, stamp: int, seconds: float = robots.ANSWER_S) -> np.ndarray:
        """Publish a frame; returns its labels H×W."""
        message = good_image(frame, self.transport)
        self.show(message, stamp)
        robots.wait_until(
            lambda: self.labels and self.labels[-1].header == message.header,
            f'labels of the good frame {stamp}',
            seconds,
        )
        del self.labels[:-1]
        return robots.pixels_of(self.labels[-1])

    def first(self, frame: np.ndarray, stamp: int) -> None:
        """Publish a frame until its labels arrive; the first may be lost during discovery."""
        for attempt in range(30):
            try:
                self.track(frame, stamp + attempt, 1.0)
                return
            except AssertionError:
                continue
        raise AssertionError('no labels came of the first frame')


class Fuzz:
    """A run of the trial."""

    def __init__(self, calm: Eye, wild: Eye, footage: Footage, folder: Path, chance: random.Random) -> None:
        self.calm, self.wild, self.footage, self.chance = calm, wild, footage, chance
        self.result = Result(wild.transport)
        self.stamp = 1_000_000_000
        self.invalid = 0
        for eye in (calm, wild):
            eye.first(footage.frames[0], self.stamp)
        self.stamp += 100
        for eye in (calm, wild):
            eye.track(footage.frames[0], self.stamp)
            answer = eye.robot.seed(
                robots.mask_seed(footage.mask(0, OBJECT), 'first'), robots.mask_seed(footage.mask(0, DECOY), 'second')
            )
            assert answer.success, answer.message
            saved = eye.robot.save_memory('good')
            assert saved.success, saved.message
        self.world = World(footage.mask(0).shape, footage.mask(0, 3), tuple(answer.ids), 1, folder)

    def good_frame(self) -> None:
        """Send the next frame to both nodes."""
        self.result.frames += 1
        frame = self.footage.frames[self.result.frames % len(self.footage.frames)]
        self.stamp += robots.FRAME_NS
        quiet, labels = (eye.track(frame, self.stamp) for eye in (self.calm, self.wild))
        self.result.differing += not np.array_equal(quiet, labels)

    def burst(self, count: int) -> None:
        """Send malformed inputs to the wild node."""
        for number in range(1, count + 1):
            if self.chance.random() < 0.5:
                self._request(wrong_request(self.chance, self.world))
            else:
                self._image(self.stamp + number * STEP_NS)

    def _request(self, wrong: Wrong) -> None:
        self.result.requests[wrong.what] += 1
        begun = time.monotonic()
        answer = self.wild.robot.call(wrong.kind, wrong.service, wrong.request, 120.0)
        spent = time.monotonic() - begun
        if wrong.service == '~/set_parameters':
            success, message = answer.results[0].successful, answer.results[0].reason
        else:
            success, message = answer.success, getattr(answer, 'message', 'a transition has none')
        if success:
            self.result.not_refused.append(f'{wrong.what}: {message[:200]}')
        elif not message or _internal(answer) or len(message) > LONGEST_MESSAGE:
            self.result.unclear.append(f'{wrong.what}: {len(message)} characters: {message[:200]}')
        if spent > SLOW_S:
            self.result.slow.append(f'{wrong.what}: {spent:.1f} s')

    def _image(self, stamp: int) -> None:
        frame = self.footage.frames[self.chance.randrange(len(self.footage.frames))]
        what, message = wrong_image(self.chance, frame, self.wild.transport)
        self.result.images[what] += 1
        negative = what == NEGATIVE
        self.wild.show(message, None if negative else stamp)
        self.invalid += 1
        try:
            self.wild.robot.diagnostics(lambda values: int(values['invalid']) >= self.invalid, 'an invalid image')
        except AssertionError:
            self.result.not_counted.append(what)
            self.invalid -= 1
            return
        if negative:  # such an image is not held; the log reports it, throttled
            if "is negative; correct the sender's clock" not in self.wild.robot.process.output:
                self.result.not_named.append(what)
            return
        answer = self.wild.robot.seed(robots.mask_seed(self.world.mask), stamp=time_of(stamp))
        said = answer.message
        unclear = answer.error_code in (ErrorCode.INTERNAL, ErrorCode.STAMP_NOT_HELD)
        if answer.success or unclear or not said or len(said) > LONGEST_MESSAGE:
            self.result.not_named.append(f'{what}: {said[:200]}')

    def afterwards(self) -> None:
        """Send odd but allowed inputs: tracked or refused, and the node continues."""
        sizes = ((1, 1), (1, 2), (2, 1), (3, 5), (16, 16), (70, 700))
        for size in sizes:
            self.stamp += robots.FRAME_NS
            self.wild.show(good_image(np.full((*size, 3), 99, np.uint8), self.wild.transport), self.stamp)
            self._arrived()
            request = SeedObjects.Request(seeds=[robots.mask_seed(np.ones(size, np.uint8), 'ü' * 50)])
            self.wild.robot.call(SeedObjects, '~/seed', request, 60.0)
        self.wild.robot.reset()
        self.stamp += robots.FRAME_NS
        self.wild.track(self.footage.frames[0], self.stamp)

    def _arrived(self) -> None:
        """Wait until the node holds the newest image and accepts seeds for it."""
        request = SeedObjects.Request(seeds=[robots.mask_seed(self.world.mask)])
        request.header.stamp = time_of(self.stamp)

        def arrived() -> bool:
            answer = self.wild.robot.call(SeedObjects, '~/seed', request, 60.0)
            return answer.error_code != ErrorCode.STAMP_NOT_HELD

        robots.wait_until(arrived, 'an odd image to arrive')


def _internal(answer: Any) -> bool:
    """Whether a request caused an internal error; foreign services have no error code."""
    return bool(getattr(answer, 'error_code', ErrorCode.NONE) == ErrorCode.INTERNAL)


def time_of(stamp: int) -> Time:
    """Convert a stamp [ns] to a message."""
    return Time(sec=stamp // 10**9, nanosec=stamp % 10**9)


def run(args: Any) -> int:
    """Run the trial; returns the exit code."""
    transports = ('raw', 'compressed') if args.transport == 'both' else (args.transport,)
    with tempfile.TemporaryDirectory(prefix='xmem_fuzz_') as name:
        footage = Footage(Path(name) / 'frames', 60)
        results = [_run(args, transport, footage, Path(name) / transport) for transport in transports]
    return _report(args, results)


def _run(args: Any, transport: str, footage: Footage, folder: Path) -> Result:
    parameters = {
        'device': args.device,
        'size': args.size,
        'max_objects': 3,
        'memory_folder': str(folder),
        'image_transport': transport,
        'diagnostics_period': 0.1,
        'no_image_warning_after': 0.0,
    }
    chance = random.Random(args.seed)
    processes_of: list[robots.NodeProcess] = []
    eyes: list[robots.Robot] = []
    fuzz = None
    try:
        for space in ('/calm', '/wild'):  # both start at once
            own = {**parameters, 'memory_folder': str(folder / space[1:])}
            processes_of.append(robots.QuickNodeProcess(own, ['-r', f'__ns:={space}']))
        for space, process in zip(('/calm', '/wild'), processes_of, strict=True):
            process.says('active: waiting for images', robots.START_S)
            robot = robots.Robot(space)
            robot.process = process
            eyes.append(robot)
        fuzz = Fuzz(*(Eye(robot, transport) for robot in eyes), footage, folder / 'wild', chance)
        bar = tqdm(total=args.times, desc=transport, unit='fault', mininterval=5)
        while bar.n < args.times:
            count = min(chance.randint(1, BURST), args.times - bar.n)
            fuzz.burst(count)
            fuzz.good_frame()
            bar.update(count)
        bar.close()
        fuzz.afterwards()
    except AssertionError as error:
        if fuzz is None:
            raise
        fuzz.result.faults.append(f'broken off: {str(error)[:2000]}')
    finally:
        outputs = [process.output for process in processes_of]
        codes = [process.process.poll() for process in processes_of]
        for process, robot in zip(processes_of, eyes, strict=False):
            process.close()
            robot.close()
    assert fuzz is not None
    fuzz.result.crashes = sum(code is not None for code in codes)
    fuzz.result.faults += processes.faults_of(outputs[1])
    if fuzz.result.faults or fuzz.result.crashes:
        print(processes.tail_of(outputs[1]))
    return fuzz.result


def _report(args: Any, results: list[Result]) -> int:
    rows = []
    for result in results:
        for kind in ('requests', 'images'):
            counted: Counter[str] = getattr(result, kind)
            rows += [[f'{result.transport}, {kind}: {what}', count] for what, count in sorted(counted.items())]
    print(table(('malformed', 'times'), rows))
    print(', '.join(f'{result.frames} good frames ({result.transport})' for result in results))
    lists = ('not_refused', 'unclear', 'slow', 'not_counted', 'not_named', 'faults')
    for result in results:
        for name in lists:
            for line, count in Counter(getattr(result, name)).most_common(20):
                print(f'{result.transport}: {name.replace("_", " ")}: {count} × {line}')
    sums = {name: sum(len(getattr(result, name)) for result in results) for name in lists}
    bars = [
        Bar('malformed requests that were not refused', sums['not_refused']),
        Bar(f'refusals without a message, or one of more than {LONGEST_MESSAGE} characters', sums['unclear']),
        Bar(f'refusals that took more than {SLOW_S:g} s', sums['slow']),
        Bar('malformed images that were not counted as invalid', sums['not_counted']),
        Bar('malformed images that were not named', sums['not_named']),
        Bar('good frames whose labels differ', sum(result.differing for result in results)),
        Bar('crashes', sum(result.crashes for result in results)),
        Bar('faults in the output of the node', sums['faults']),
    ]
    found = {
        'trial': 'fuzz',
        'seed': args.seed,
        'times': args.times,
        'size': args.size,
        'runs': [
            {
                'transport': result.transport,
                'frames': result.frames,
                'requests': dict(result.requests),
                'images': dict(result.images),
                **{name: getattr(result, name) for name in lists},
            }
            for result in results
        ],
    }
    return finish(found, bars, args.json)
