# SPDX-License-Identifier: MIT
"""Processes of a trial: start, kill, stop, and stacks of processes that hang.

All of them run in the trial's own namespace.
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
END_S = 10.0  # longest time until a process ends
FAULTS = ('Traceback (most recent call last)', 'internal error', 'Fatal Python error', 'Segmentation fault')


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    signal: str
    seconds: float
    code: int
    hung: bool  # whether it had to be killed
    output: str  # complete output; with the stacks of all threads if it hung


class TrialProcess(NodeProcess):
    """A Python program with ROS arguments, in the trial's namespace.

    Arguments:
        program: what Python runs, with its own arguments.
        parameters: name → value.
    """

    def __init__(self, program: tuple[str, ...], parameters: dict[str, Any] | None = None) -> None:
        self.program = program
        os.environ['PYTHONFAULTHANDLER'] = '1'  # inherited: SIGABRT prints the stacks of all threads
        super().__init__(parameters, ['-r', f'__ns:={NAMESPACE}'])

    def end(self, sign: signal.Signals = signal.SIGINT, seconds: float = END_S) -> Ending:
        """Send a signal and wait; a process that hangs prints its stacks and is killed."""
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
        """Stop the process in any state."""
        if self.process.poll() is None:
            self.end()
        self._log.unlink(missing_ok=True)


def native_stacks(pid: int) -> str:
    """Return the stacks of a process's threads by gdb; empty without gdb.

    faulthandler no longer works while the interpreter shuts down.
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
    """Reads complete lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self.path, self._at, self._rest = path, 0, b''

    def read(self) -> list[str]:
        """Return the lines since the last call; none while the file does not exist."""
        if not self.path.exists():
            return []
        with self.path.open('rb') as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b'\n')
        return [line.decode() for line in lines]


def node(parameters: dict[str, Any], program: tuple[str, ...] = NodeProcess.program) -> TrialProcess:
    """Start the node."""
    return TrialProcess(program, parameters)


def camera(clip: Path, log: Path, rate: float) -> TrialProcess:
    """Start a camera that repeats a folder of frames; `log` gets stamp [ns] and index per image."""
    options = ['--clip', clip, '--rate', rate, '--loop', '--log', log]
    return TrialProcess(('-m', 'xmem_ros.demo.camera', *map(str, options)))


def consumer(log: Path) -> TrialProcess:
    """Start a consumer that writes labels and objects to `log`."""
    return TrialProcess(('-m', 'robustness.consumer', str(log)))


def operator() -> Robot:
    """Make the operator, who calls the node's services.

    Make a new one after each restart of the node. An older one would keep calling the killed node
    until the middleware drops that, after about 20 s.
    """
    robot = Robot(NAMESPACE)
    robot.node.destroy_publisher(robot.images)  # the camera is a separate process
    return robot


def faults_of(output: str) -> list[str]:
    """Return the lines of an output that report faults."""
    return [line for line in output.splitlines() if any(fault in line for fault in FAULTS)]


def tail_of(output: str, lines: int = 60) -> str:
    """Return the end of an output, indented."""
    return '\n'.join(f'    {line}' for line in output.splitlines()[-lines:])
