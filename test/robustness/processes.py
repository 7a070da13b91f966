# SPDX-License-Identifier: MIT
"""Processes of a robustness trial: started, killed, asked to end, and where they hang when they do not.

Used by `python -m robustness`. Everything runs in a namespace of the trial's own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_harness import NodeProcess, Robot

NAMESPACE = '/trial'
END_S = 10.0  # that a process may take to end when it is asked to
FAULTS = ('Traceback (most recent call last)', 'internal error', 'Fatal Python error', 'Segmentation fault')


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    signal: str
    seconds: float
    code: int
    hung: bool  # it had to be killed
    output: str  # all of it; of one that hung with the stack of every thread


class TrialProcess(NodeProcess):
    """A Python program with arguments for ROS, in the trial's namespace.

    Arguments:
        program: what Python runs, with its own arguments.
        parameters: name → value.
    """

    def __init__(self, program: tuple[str, ...], parameters: dict[str, Any] | None = None) -> None:
        self.program = program
        os.environ['PYTHONFAULTHANDLER'] = '1'  # inherited: on SIGABRT it prints the stack of every thread
        super().__init__(parameters, ['-r', f'__ns:={NAMESPACE}'])

    def end(self, sign: signal.Signals = signal.SIGINT, seconds: float = END_S) -> Ending:
        """Send a signal and wait; one that does not end says where its threads are, and is killed."""
        begun, hung = time.monotonic(), False
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            hung = True
            self._append(native_stacks(self.process.pid))
            self.process.send_signal(signal.SIGABRT)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        took, output = time.monotonic() - begun, self.output
        self._log.unlink(missing_ok=True)
        return Ending(sign.name, took, self.process.returncode, hung, output)

    def _append(self, text: str) -> None:
        with self._log.open('a') as log:
            log.write(text)

    def close(self) -> None:
        """End it, in whatever state."""
        if self.process.poll() is None:
            self.end()
        self._log.unlink(missing_ok=True)


def native_stacks(pid: int) -> str:
    """Where the threads of a process are, by gdb; empty where there is none.

    faulthandler does not tell any more when the interpreter is being taken down.
    """
    gdb = shutil.which('gdb')
    if gdb is None:
        return ''
    command = [gdb, '-p', str(pid), '-batch', '-ex', 'set pagination off', '-ex', 'thread apply all backtrace 40']
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return ''
    return '\n'.join(line for line in found.stdout.splitlines() if line.startswith(('#', 'Thread'))) + '\n'


class Tail:
    """Whole lines that are written to a file, as they come."""

    def __init__(self, path: Path) -> None:
        self.path, self._at, self._rest = path, 0, b''

    def read(self) -> list[str]:
        """Lines since the last call; none while there is no file."""
        if not self.path.exists():
            return []
        with self.path.open('rb') as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b'\n')
        return [line.decode() for line in lines]


def node(parameters: dict[str, Any], program: tuple[str, ...] = NodeProcess.program) -> TrialProcess:
    """The node."""
    return TrialProcess(program, parameters)


def camera(clip: Path, log: Path, rate: float) -> TrialProcess:
    """A camera that plays a folder of frames again and again; a line of stamp (ns) and index per image in `log`."""
    options = ['--clip', clip, '--rate', rate, '--loop', '--log', log]
    return TrialProcess(('-m', 'xmem_ros.demo.camera', *map(str, options)))


def consumer(log: Path) -> TrialProcess:
    """A process that hears labels and objects, and writes them to `log`."""
    return TrialProcess(('-m', 'robustness.consumer', str(log)))


def operator() -> Robot:
    """Who calls the node's services.

    A new one for each life of the node: one that knew a node that was killed would go on calling that until the
    middleware gives it up, which takes some 20 s.
    """
    robot = Robot(NAMESPACE)
    robot.node.destroy_publisher(robot.images)  # the camera is a process of its own
    return robot


def faults_of(output: str) -> list[str]:
    """Lines of a process's output that tell of a fault."""
    return [line for line in output.splitlines() if any(fault in line for fault in FAULTS)]


def tail_of(output: str, lines: int = 60) -> str:
    """The end of an output, indented."""
    return '\n'.join(f'    {line}' for line in output.splitlines()[-lines:])
