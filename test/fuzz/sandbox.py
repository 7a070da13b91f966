# SPDX-License-Identifier: MIT
"""Sandbox for one input: a forked child with limits, an audit hook and canary files."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CPU_S = 10
REUSED = 40  # inputs of one child; a fork of a process with torch costs more than most inputs
WALL_S = 60.0  # for deadlocks; generous, since other programs may keep the CPU busy
MOST_BYTES = 2 << 30
MOST_FILE = 1 << 30  # bytes of a written file
MOST_TEXT = 1 << 20  # bytes of output
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.chmod', 'os.chown', 'os.link'}
CHANGES |= {'os.symlink', 'os.utime', 'os.mkfifo', 'os.mknod', 'os.setxattr', 'os.removexattr', 'shutil.rmtree'}
PROCESSES = {'subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'os.forkpty', 'pty.spawn'}
READING = 'reads a file outside its input'
NETWORK = {'socket.connect', 'socket.bind', 'socket.getaddrinfo', 'socket.sendto', 'urllib.Request'}
WANT = re.compile(r"can't allocate|bad_alloc|MemoryError|annot allocate memory|Unable to allocate|nsufficient memory")
CONTROL = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x9b]')
CANARIES = {'keep.txt': b'canary\n', 'keep.mcap': b'\x89MCAP0\r\n', 'sub/keep.onnx': b'canary\n'}
CANARIES |= {'keep.ts': b'G' * 188, 'keep.mp4': b'canary\n'}

Files = Mapping[str, 'bytes | Link']


@dataclass(frozen=True)
class Link:
    """Symbolic link in an input."""

    target: str


@dataclass(frozen=True)
class Places:
    """Folders of the sandbox."""

    root: Path
    port: int  # of a listener that nobody may connect to

    @property
    def input(self) -> Path:
        """The input."""
        return self.root / 'in'

    @property
    def work(self) -> Path:
        """Working directory, the only folder that may be written to."""
        return self.root / 'work'

    @property
    def canary(self) -> Path:
        """Canary files, which must not be touched or read."""
        return self.root / 'canary'


@dataclass
class Outcome:
    """Outcome of one input."""

    symptoms: list[str] = field(default_factory=list)  # violated promises; empty: none
    detail: str = ''  # traceback or output
    code: int | None = None
    seconds: float = 0.0  # CPU time
    peak: int = 0  # resident set [bytes], the harness included
    repeatable: bool = False  # whether the child had run other inputs before


@dataclass
class _Child:
    """Forked process that runs inputs."""

    pid: int
    handle: int  # pidfd
    go: int  # pipe: a byte for each input to run
    done: int  # pipe: a byte for each finished input
    grown: int  # resident set that it inherited from earlier inputs [bytes]
    ran: int = 0  # inputs
    used: float = 0.0  # CPU time of finished inputs [s]

    def wait(self) -> tuple[Any, int]:
        """Wait for the end of the process; return its resource usage and status."""
        for handle in (self.handle, self.go, self.done):
            os.close(handle)
        _, status, usage = os.wait4(self.pid, 0)
        return usage, status


class Sandbox:
    """Runs inputs in forked children; a context manager that owns the folder.

    A child runs several inputs. One with a symptom is run again in a child of its own.

    Arguments:
        root: folder to create; None: a new temporary folder.
        port: of the canary listener; 0: any free one.
    """

    def __init__(self, root: Path | None = None, port: int = 0) -> None:
        root = root or Path(tempfile.mkdtemp(prefix='xmem_fuzz_'))
        root.mkdir(exist_ok=True)
        self._listener = socket.create_server(('127.0.0.1', port))
        self._listener.setblocking(False)
        self.places = Places(root, self._listener.getsockname()[1])
        self._base = _status('VmRSS')
        self._child: _Child | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_child()
        self._listener.close()
        shutil.rmtree(self.places.root, ignore_errors=True)

    def run(
        self,
        files: Files,
        work: Callable[[Places], int | None],
        allowed: tuple[type[BaseException], ...],
        codes: frozenset[int],
        may: frozenset[str] = frozenset(),
    ) -> Outcome:
        """Run `work` on an input.

        Arguments:
            files: path below the input folder → content.
            work: entry point; returns an exit code, or None.
            allowed: error types that it may raise; they count as exit code 2.
            codes: allowed exit codes.
            may: allowed audit events and symptoms.
        """
        outcome = self._run(files, work, allowed, codes, may)
        if not outcome.symptoms or (self._child is None and not outcome.repeatable):
            return outcome
        self._end_child()
        again = self._run(files, work, allowed, codes, may)
        self._end_child()
        if not again.symptoms:  # it depends on earlier inputs
            outcome.symptoms = [f'{symptom}, after other inputs' for symptom in outcome.symptoms]
            return outcome
        return again

    def _run(
        self,
        files: Files,
        work: Callable[[Places], int | None],
        allowed: tuple[type[BaseException], ...],
        codes: frozenset[int],
        may: frozenset[str],
    ) -> Outcome:
        self._lay_out(files)
        before = _listing(self.places)
        begun = time.monotonic()
        child = self._child = self._child or self._fork(work, allowed, may)
        outcome = Outcome(repeatable=child.ran > 0)
        child.ran += 1
        os.write(child.go, b'g')
        status = _wait(child)
        if status is None:
            result = json.loads((self.places.root / 'result').read_text())
            outcome.seconds, outcome.peak = result['cpu'] - child.used, result['peak'] - child.grown
            child.used = result['cpu']
            if result['last'] or child.ran == REUSED:
                self._end_child()
        else:
            usage, status = status
            self._child = None
            outcome.seconds = usage.ru_utime + usage.ru_stime - child.used
            outcome.peak = (usage.ru_maxrss << 10) - child.grown
        self._judge(outcome, status or 0, codes, time.monotonic() - begun)
        self._look_around(outcome, before, killed=os.WIFSIGNALED(status or 0))
        outcome.symptoms = [symptom for symptom in outcome.symptoms if symptom not in may]
        return outcome

    def _fork(
        self, work: Callable[[Places], int | None], allowed: tuple[type[BaseException], ...], may: frozenset[str]
    ) -> _Child:
        grown = max(_status('VmRSS') - self._base, 0)  # by earlier inputs; children inherit it
        (go_out, go), (done, done_in) = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            os.close(go)
            os.close(done)
            _serve(self.places, work, allowed, may, go_out, done_in)
        os.close(go_out)
        os.close(done_in)
        return _Child(pid, os.pidfd_open(pid), go, done, grown)

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None

    def warm_up(self, files: Files, work: Callable[[Places], int | None]) -> None:
        """Run `work` on a valid input in this process, so that children inherit its imports."""
        self._lay_out(files)
        here = Path.cwd()
        os.chdir(self.places.work)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                work(self.places)
        finally:
            os.chdir(here)
        self._base = _status('VmRSS')

    def _lay_out(self, files: Files) -> None:
        places = self.places
        shutil.rmtree(places.root, ignore_errors=True)
        for name in ('in', 'work', 'canary/sub', 'tmp', 'home'):
            (places.root / name).mkdir(parents=True)
        for name, content in CANARIES.items():
            (places.canary / name).write_bytes(content)
            # relatime: the next read updates an access time that lies before the modification time
            os.utime(places.canary / name, (1, 2))
        write_files(places.input, files)

    def _judge(self, outcome: Outcome, status: int, codes: frozenset[int], seconds: float) -> None:
        text = _text(self.places.root / 'said')
        outcome.detail = text[-4000:]
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            too_long = outcome.seconds >= CPU_S or seconds >= WALL_S
            outcome.symptoms.append('takes too long' if too_long else f'killed by {name}')
            outcome.symptoms[-1] += _where(text)
            return
        try:
            result = json.loads((self.places.root / 'result').read_text())
        except (OSError, ValueError):
            outcome.symptoms.append(f'ended by itself with {os.waitstatus_to_exitcode(status)}')
            return
        outcome.code = result['code']
        if result['error']:
            outcome.symptoms.append(result['error'])
            outcome.detail = result['trace'] + outcome.detail
        elif result['code'] is not None and result['code'] not in codes:
            outcome.symptoms.append(f'exit code {result["code"]}: {_last(text)}')
        if 'Traceback (most recent call last)' in text:
            outcome.symptoms.append('shows a traceback')
        if outcome.seconds > CPU_S:
            outcome.symptoms.append('takes too long')
        if outcome.peak > MOST_BYTES or WANT.search(text) or WANT.search(result['error']):
            outcome.symptoms.append('takes too much memory')
        if CONTROL.search(text.replace('\x1b[A', '')):
            outcome.symptoms.append('prints a control character')
        outcome.symptoms += result['seen']

    def _look_around(self, outcome: Outcome, before: dict[str, Any], *, killed: bool) -> None:
        after = _listing(self.places)
        for name in sorted(set(before) | set(after)):
            if before.get(name) != after.get(name):
                what = 'changes' if name in before and name in after else 'removes' if name in before else 'makes'
                outcome.symptoms.append(f'{what} {re.sub("[0-9]+", "N", name)}')
        tmp = self.places.root / 'tmp'
        if not killed and any(tmp.iterdir()):
            outcome.symptoms.append('leaves files in the folder for temporary files')
        for name in CANARIES:
            with contextlib.suppress(OSError):
                if (self.places.canary / name).stat().st_atime_ns != 1_000_000_000:
                    outcome.symptoms.append(READING)
        with contextlib.suppress(BlockingIOError):
            self._listener.accept()[0].close()
            outcome.symptoms.append('connects to an address that the input names')


def write_files(folder: Path, files: Files) -> None:
    """Write an input; files with impossible names are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        with contextlib.suppress(OSError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Link):
                path.symlink_to(content.target)
            else:
                path.write_bytes(content)


def read_files(folder: Path) -> dict[str, bytes | Link]:
    """Read an input written by `write_files`."""
    paths = [path for path in sorted(folder.rglob('*')) if path.is_symlink() or path.is_file()]
    return {
        str(path.relative_to(folder)): Link(str(path.readlink())) if path.is_symlink() else path.read_bytes()
        for path in paths
    }


def _serve(
    places: Places,
    work: Callable[[Places], int | None],
    allowed: tuple[type[BaseException], ...],
    may: frozenset[str],
    go: int,
    done: int,
) -> None:
    """Run the entry point on one input after the other until the pipe `go` is closed; then exit."""
    seen: list[str] = []
    environment, inherited = dict(os.environ), _status('VmRSS')
    try:
        _audit(places, seen, may)
        while os.read(go, 1):
            os.environ.clear()
            os.environ.update(environment)
            grown = max(_status('VmRSS') - inherited, 0)  # by earlier inputs of this child
            _confine(places)
            result = _result_of(places, work, allowed, seen)
            usage = resource.getrusage(resource.RUSAGE_SELF)
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            result['cpu'] = sum(item.ru_utime + item.ru_stime for item in (usage, children))
            result['peak'] = _status('VmHWM') - grown
            result['last'] = threading.active_count() > 1  # it may disturb later inputs
            (places.root / 'result').write_text(json.dumps(result))
            os.write(done, b'd')
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _result_of(
    places: Places,
    work: Callable[[Places], int | None],
    allowed: tuple[type[BaseException], ...],
    seen: list[str],
) -> dict[str, Any]:
    """Run the entry point on one input."""
    seen.clear()
    result: dict[str, Any] = {'code': None, 'error': '', 'trace': ''}
    modules = set(sys.modules)
    try:
        code = work(places)
        result['code'] = code if isinstance(code, int) else 0
    except SystemExit as error:
        result['code'] = error.code if isinstance(error.code, int) else 1
    except allowed as error:
        result['code'] = 2
        print(f'{type(error).__name__}: {str(error)!a}')  # escaping is up to whoever displays it
    except BaseException as error:
        result['error'] = f'raises {type(error).__name__}{_raised_in(error)}'
        result['trace'] = traceback.format_exc()
    sys.stdout.flush()
    seen += _foreign(set(sys.modules) - modules, places)
    result['seen'] = sorted(set(seen))
    return result


def _confine(places: Places) -> None:
    said = os.open(places.root / 'said', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, said), (2, said)):
        os.dup2(source, target)
    os.close(said)
    os.close(null)
    sys.stdout = open(1, 'w', errors='backslashreplace', closefd=False)  # noqa: SIM115
    sys.stderr = open(2, 'w', errors='backslashreplace', closefd=False, buffering=1)  # noqa: SIM115
    os.chdir(places.work)
    tempfile.tempdir = None
    for name, folder in (('TMPDIR', 'tmp'), ('HOME', 'home'), ('XDG_CACHE_HOME', 'home'), ('ROS_HOME', 'home')):
        os.environ[name] = str(places.root / folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for limit, most in (
        (resource.RLIMIT_DATA, _status('VmData') + MOST_BYTES),
        (resource.RLIMIT_FSIZE, MOST_FILE),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + 1 + CPU_S),
    ):
        resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    faulthandler.enable(2)
    faulthandler.register(signal.SIGXCPU, 2, chain=True)  # prints the stack, then ends the process
    faulthandler.register(signal.SIGUSR1, 2)
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak of the resident set


def _audit(places: Places, seen: list[str], may: frozenset[str]) -> None:
    mine = tuple(f'{places.root / name}' for name in ('work', 'tmp'))
    canary = str(places.canary)

    def place_of(path: Any) -> str:
        """Resolve all links but the last component."""
        place = Path(os.fsdecode(path)).absolute()
        return str(place.parent.resolve() / place.name)

    def is_mine(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return True
        place = place_of(path)
        return place == os.devnull or place.startswith(mine) or place == str(places.root / 'result')

    def told(path: Any) -> str:
        return re.sub('[0-9]+', 'N', place_of(path).replace(str(places.root), ''))[:80]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == 'open':
            path, _, flags = args
            if isinstance(path, str | bytes):
                if (flags or 0) & WRITING and not is_mine(os.path.realpath(path)):
                    seen.append(f'writes {told(path)}')
                elif os.path.realpath(path).startswith(os.fsencode(canary) if isinstance(path, bytes) else canary):
                    seen.append(READING)
        elif event in CHANGES:
            two = event in ('os.rename', 'os.link')
            seen.extend(f'{event} {told(path)}' for path in args[: 2 if two else 1] if not is_mine(path))
        elif (event in PROCESSES or event in NETWORK) and event not in may:
            seen.append(event)
        elif event == 'pickle.find_class':
            seen.append(f'unpickles {args[0]}.{args[1]}')

    sys.addaudithook(hook)


def _foreign(names: set[str], places: Places) -> list[str]:
    """Find modules imported from the sandbox."""
    files = ((name, getattr(sys.modules.get(name), '__file__', None) or '') for name in names)
    return [f'imports {name}' for name, file in files if file and os.path.realpath(file).startswith(str(places.root))]


def _wait(child: _Child) -> tuple[Any, int] | None:
    """Wait until a child has run an input.

    Returns:
        None, or resource usage and status of a child that ended.
    """
    for number in (signal.SIGUSR1, signal.SIGKILL):  # on SIGUSR1 faulthandler prints the stack
        ready = select.select([child.done, child.handle], [], [], WALL_S if number == signal.SIGUSR1 else 1.0)[0]
        if child.done in ready and os.read(child.done, 1):
            return None
        if ready:
            break
        os.kill(child.pid, number)
    return child.wait()


def _listing(places: Places) -> dict[str, Any]:
    found = {}
    for folder in ('in', 'canary', 'home'):
        for path in (places.root / folder).rglob('*'):
            about = path.lstat()
            if not path.is_dir() or path.is_symlink():
                found[str(path.relative_to(places.root))] = (about.st_size, about.st_mtime_ns, about.st_mode)
    return found


def _raised_in(error: BaseException) -> str:
    """Name the innermost function of xmem_ros in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if 'xmem_ros' in frame.filename] or list(frames)
    return f' in {Path(ours[-1].filename).name}:{ours[-1].name}' if ours else ''


def _where(text: str) -> str:
    """Name the innermost function of xmem_ros in a stack printed by faulthandler."""
    found = re.search(r'File "[^"]*xmem_ros[^"]*?([^/"]+)", line \d+ in (\S+)', text)
    return f' in {found[1]}:{found[2]}' if found else ''


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    plain = re.sub(r'/\S+|[0-9]+', 'N', lines[-1]) if lines else ''
    return plain[:60]


def _text(path: Path) -> str:
    try:
        with path.open('rb') as file:
            return file.read(MOST_TEXT).decode(errors='replace')
    except OSError:
        return ''


def _status(name: str) -> int:
    """Read a memory figure of this process [bytes]."""
    found = re.search(rf'{name}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(found[1]) << 10 if found else 0
