# SPDX-License-Identifier: MIT
"""Child process of the sandbox: limits, audit hook, and the entry point on input after input."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_S = 10
MOST_BYTES = 2 << 30
MOST_FILE = 1 << 30  # bytes of a written file
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.chmod', 'os.chown', 'os.link'}
CHANGES |= {'os.symlink', 'os.utime', 'os.mkfifo', 'os.mknod', 'os.setxattr', 'os.removexattr', 'shutil.rmtree'}
PROCESSES = {'subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'os.forkpty', 'pty.spawn'}
READING = 'reads a file outside its input'
NETWORK = {'socket.connect', 'socket.bind', 'socket.getaddrinfo', 'socket.sendto', 'urllib.Request'}


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


def serve(
    places: Places,
    work: Callable[[Places], int | None],
    allowed: tuple[type[BaseException], ...],
    may: frozenset[str],
    go: int,
    done: int,
) -> None:
    """Run the entry point on one input after the other until the pipe `go` is closed; then exit."""
    seen: list[str] = []
    environment, inherited = dict(os.environ), status('VmRSS')
    try:
        _audit(places, seen, may)
        while os.read(go, 1):
            os.environ.clear()
            os.environ.update(environment)
            grown = max(status('VmRSS') - inherited, 0)  # by earlier inputs of this child
            _confine(places)
            result = _result_of(places, work, allowed, seen)
            usage = resource.getrusage(resource.RUSAGE_SELF)
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            result['cpu'] = sum(item.ru_utime + item.ru_stime for item in (usage, children))
            result['peak'] = status('VmHWM') - grown
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
        (resource.RLIMIT_DATA, status('VmData') + MOST_BYTES),
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
                elif os.fsdecode(os.path.realpath(path)).startswith(canary):
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


def _raised_in(error: BaseException) -> str:
    """Name the innermost function of xmem_ros in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if 'xmem_ros' in frame.filename] or list(frames)
    return f' in {Path(ours[-1].filename).name}:{ours[-1].name}' if ours else ''


def status(name: str) -> int:
    """Read a memory figure of this process [bytes]."""
    found = re.search(rf'{name}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(found[1]) << 10 if found else 0
