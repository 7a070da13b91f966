# SPDX-License-Identifier: MIT
"""The sandbox detects every violation. Each runs in a single-threaded process, which may fork."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from fuzz import child as child_process
from fuzz.sandbox import Files, Link, Outcome, Places, Sandbox

INPUT = {'a': b'1'}


def _fill_memory(_: Places) -> None:
    bytearray(3 << 30)


def _spin(_: Places) -> None:
    while True:
        pass


def _read_natively(places: Places) -> None:
    libc = ctypes.CDLL(None)
    handle = libc.open(os.fsencode(places.canary / 'keep.txt'), os.O_RDONLY)
    libc.read(handle, ctypes.create_string_buffer(4), 4)


def _connect_natively(places: Places) -> None:
    code = f'import socket; socket.create_connection(("127.0.0.1", {places.port}))'
    if not os.posix_spawn(sys.executable, [sys.executable, '-c', code], os.environ):
        raise AssertionError
    os.wait()


def _import_stranger(places: Places) -> None:
    sys.path.insert(0, str(places.input))
    __import__('stranger')


def _refuse(_: Places) -> int:
    raise ValueError('not allowed here')


VIOLATIONS: dict[str, tuple[Callable[[Places], object], str]] = {
    'an error that is not ours': (lambda _: {}['x'], 'raises KeyError'),
    'an exit code that is not documented': (lambda _: 3, 'exit code 3'),
    'a traceback': (lambda _: print('Traceback (most recent call last):'), 'shows a traceback'),
    'a control character': (lambda _: print('\x1b[31m'), 'prints a control character'),
    'a crash': (lambda _: os.kill(os.getpid(), 11), 'killed by SIGSEGV'),
    'an end of its own': (lambda _: os._exit(0), 'ended by itself'),
    'a loop': (_spin, 'takes too long'),
    'too much memory': (_fill_memory, 'raises MemoryError'),
    'a file elsewhere': (lambda places: (places.root / 'home' / 'x').write_text(''), 'writes /home/x'),
    'a changed input': (lambda places: (places.input / 'a').write_text('2'), 'changes in/a'),
    'a removed canary': (lambda places: (places.canary / 'keep.txt').unlink(), 'os.remove /canary/keep.txt'),
    'a read canary': (lambda places: (places.canary / 'keep.txt').read_text(), 'reads a file outside its input'),
    'a canary read by C': (_read_natively, 'reads a file outside its input'),
    'a canary behind a link': (lambda places: (places.input / 'link').read_text(), 'reads a file outside its input'),
    'a file left behind': (lambda places: (places.root / 'tmp' / 'x').write_text(''), 'leaves files in the folder'),
    'a process': (lambda _: subprocess.run(['true'], check=True), 'subprocess.Popen'),
    'a connection': (_connect_natively, 'connects to an address that the input names'),
    'a module of the input': (_import_stranger, 'imports stranger'),
}


def _outcome(violation: str) -> Outcome:
    child_process.CPU_S = 2  # in this process alone
    files: Files = {**INPUT, 'stranger.py': b'', 'link': Link('../canary/keep.txt')}
    with Sandbox() as sandbox:
        return sandbox.run(files, VIOLATIONS[violation][0], (), frozenset({0, 2}))  # type: ignore[arg-type]


def _harmless(refused: bool) -> tuple[Outcome, bool]:
    def work(places: Places) -> int:
        (places.work / 'out').write_text((places.input / 'a').read_text())
        time.sleep(0.01)
        return _refuse(places) if refused else 0

    with Sandbox() as sandbox:
        outcome = sandbox.run(INPUT, work, (ValueError,), frozenset({0, 2}))
        root = sandbox.places.root
    return outcome, root.exists()


@pytest.fixture(scope='module')
def elsewhere():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        yield pool


@pytest.mark.parametrize('violation', VIOLATIONS)
def test_a_violation_is_detected(elsewhere: ProcessPoolExecutor, violation: str) -> None:
    symptoms = elsewhere.submit(_outcome, violation).result().symptoms
    assert any(symptom.startswith(VIOLATIONS[violation][1]) for symptom in symptoms), symptoms


@pytest.mark.parametrize('refused', [False, True])
def test_work_within_its_folder_is_no_finding(elsewhere: ProcessPoolExecutor, refused: bool) -> None:
    outcome, left = elsewhere.submit(_harmless, refused).result()
    assert (outcome.symptoms, outcome.code) == ([], 2 if refused else 0)
    assert not left
