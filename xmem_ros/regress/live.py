# SPDX-License-Identifier: MIT
"""Live runner: tracks a case with a node over DDS, frame by frame."""

from __future__ import annotations

import functools
import os
import re
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Log
from rclpy.qos import QoSProfile

from xmem_ros.child_process import Child
from xmem_ros.client.link import NodeLink
from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.errors import NodeError, NodeMissingError, NodeTimeoutError
from xmem_ros.intensity import IntensityScale
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.parameters.table import changed, rules, value_of
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.typestore import COMPRESSED_IMAGE
from xmem_ros.regress.case_inputs import FrameResult, parameters_of, plan_of
from xmem_ros.regress.removals import Removals
from xmem_ros.replay.lockstep import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xmem_ros.recordings.recording import Recording
    from xmem_ros.regress.figures import Figures
    from xmem_ros.regress.suite import Case

MODULE = 'xmem_ros.node.main'
DIAGNOSTICS_S = 0.2  # period of the diagnostics, which report dropped images and memory
MB = 1e6
_WARN = 30  # rcl_interfaces/Log.WARN, which is bytes in some distributions


@contextmanager
def live_run(case: Case) -> Iterator[LiveRun]:
    """Connect to the node of a case, or start one; raises `XMemError`."""
    with ExitStack() as stack:
        recording = stack.enter_context(open_recording(case.input, case.image_topic))
        child = None
        name = case.node
        if not name:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='xmem_regress_')))
            namespace = f'/regress_{os.getpid()}_{re.sub("[^a-z0-9]+", "_", case.name.lower()).strip("_") or "case"}'
            name = f'{namespace}/xmem'
            file = _parameter_file(case, recording, folder / 'parameters.yaml')
            options = ['--ros-args', '--params-file', str(file), '-r', f'__ns:={namespace}']
            child = stack.enter_context(Child(MODULE, options, folder / 'node.log'))
        link = NodeLink(name, timeout=case.timeout)
        stack.callback(link.close)
        memory = _MemoryUse(link)
        log = _Warnings(link)
        _wait_active(link, child, case.timeout)
        replay = stack.enter_context(
            Replay(
                case.input,
                name,
                image_topic=recording.image_topic,
                plan=plan_of(case, recording),
                most=case.frames,
                timeout=case.timeout,
            )
        )
        yield LiveRun(case, replay, child, memory, log, recording.length)


class LiveRun:
    """Replay of a recording into a node."""

    def __init__(
        self,
        case: Case,
        replay: Replay,
        child: Child | None,
        memory: _MemoryUse,
        log: _Warnings,
        length: int | None,
    ) -> None:
        self._case, self._replay, self._child, self._memory, self._log = case, replay, child, memory, log
        self._removals = Removals(replay.places)
        self.length = min(filter(None, (length, case.frames)), default=None)

    def frames(self) -> Iterator[FrameResult]:
        """Replay, frame by frame; raises `XMemError`."""
        self._log.messages.clear()  # from the node's start
        scale = IntensityScale()
        try:
            for live in self._replay:
                yield FrameResult(
                    index=live.index,
                    name=live.frame.name,
                    stamp_ns=live.stamp_ns,
                    image=functools.partial(rgb_of, live.frame.message, scale),
                    labels=live.labels_with_seeds,
                    objects=[replace(item, id=live.plan_ids.get(item.id, item.id)) for item in live.objects],
                    removed=self._removals.at(live.index),
                    processing_ms=live.processing_ms,
                    age_ms=live.age_ms,
                )
        except NodeError as error:
            if self._child is not None and self._child.exit_code is not None:
                raise NodeError(
                    f'{error}; the node ended with exit code {self._child.exit_code}; the end of its log:\n'
                    f'{self._child.tail()}'
                ) from error
            raise

    def figures(self) -> Figures:
        """Return frames without a result, and memory."""
        found: Figures = {'missing_frames': len(self._replay.report.dropped)}
        if self._memory.wait(self._case.timeout):
            found['memory_mb'] = self._memory.peak / MB
        if self._child is not None:
            found |= _process_memory(self._child)
        return found

    def notes(self) -> list[str]:
        """Return dropped images, unusable seeds, and warnings of the node."""
        report = self._replay.report
        found = [f'image {item.index} has no result: {item.reason}' for item in report.dropped[:5]]
        found += report.missed[:5]
        found += [f'log of the node: {text}' for text in list(self._log.messages)[:5]]
        return found

    def damage(self) -> str:
        """Return why the recording could not be read completely; '' if it could."""
        return self._replay.report.damage


class _MemoryUse:
    """Peak size of the tracker's stores [bytes], from the node's diagnostics."""

    def __init__(self, link: NodeLink) -> None:
        self.peak, self._count = 0.0, 0
        self._name = keys.status_name(link.name)
        link.subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, QoSProfile(depth=10))

    def wait(self, seconds: float) -> bool:
        """Wait for the next diagnostics; returns whether a size is known."""
        before, end = self._count, time.monotonic() + min(seconds, 10.0)
        while self._count == before and time.monotonic() < end:
            time.sleep(0.02)
        return self.peak > 0

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._name:
                sizes = [float(pair.value) for pair in status.values if pair.key == keys.MEMORY_BYTES]
                self.peak = max([self.peak, *sizes])
                self._count += 1


class _Warnings:
    """Warnings and errors that the node logs on /rosout."""

    def __init__(self, link: NodeLink) -> None:
        self.messages: list[str] = []
        self._name = link.name.strip('/').replace('/', '.')
        link.subscribe(Log, '/rosout', self._on_log, QoSProfile(depth=100))

    def _on_log(self, message: Log) -> None:
        if message.level >= _WARN and f'{message.name}.'.startswith(f'{self._name}.'):
            self.messages.append(message.msg)


def _parameter_file(case: Case, recording: Recording, path: Path) -> Path:
    """Write all parameters of the node of a case; returns the path."""
    kinds = {topic.name: topic.msgtype for topic in recording.topics}
    compressed = kinds.get(recording.image_topic) == COMPRESSED_IMAGE
    parameters = changed(
        parameters_of(case),
        {
            'autostart': True,
            'queue': 'newest',
            'image_transport': 'compressed' if compressed else 'raw',
            'diagnostics_period': DIAGNOSTICS_S,
        },
    )
    values: dict[str, Any] = {name: value_of(parameters, name) for name in rules()}
    # ROS cannot infer the type of an empty list
    plain = {name: list(value) or [''] if isinstance(value, tuple) else value for name, value in values.items()}
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': plain}}), encoding='utf-8')
    return path


def _wait_active(link: NodeLink, child: Child | None, timeout: float) -> None:
    """Wait until the node is active; raises `NodeError`, with the end of its log."""
    end = time.monotonic() + timeout
    while True:
        if child is not None and child.exit_code is not None:
            raise NodeError(f'the node ended with exit code {child.exit_code}; the end of its log:\n{child.tail()}')
        try:
            state = link.state(1.0)
        except (NodeMissingError, NodeTimeoutError):
            state = ''
        if state == 'active':
            return
        if time.monotonic() > end:
            if child is None:
                link.state()  # raises the precise error
                raise NodeError(f'{link.name} is {state or "unresponsive"}, not active; configure and activate it')
            raise NodeError(
                f'the node was not active within {timeout:g} s (timeout of the case); its state is '
                f'{state or "unknown"}; the end of its log:\n{child.tail()}'
            )


def _process_memory(child: Child) -> Figures:
    """Return the peak resident memory of a process, MB; nothing without /proc."""
    try:
        status = Path(f'/proc/{child.pid}/status').read_text()
    except OSError:
        return {}
    match = re.search(r'^VmHWM:\s+(\d+) kB', status, re.MULTILINE)
    return {'process_mb': int(match[1]) * 1024 / MB} if match else {}
