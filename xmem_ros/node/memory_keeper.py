# SPDX-License-Identifier: MIT
"""Memory file that a node loads at its start and keeps current, so that a restart loses no ids."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from xmem_ros import atomic
from xmem_ros.errors import MemoryFileMissingError, NodeFaultError, NodeInactiveError, ParameterError, XMemError
from xmem_ros.stream.memory_files import memory_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xmem_ros.parameters.table import Parameters
    from xmem_ros.stream.session import TrackingSession
    from xmem_ros.stream.worker import Worker
    from xmem_ros.tracker.snapshot import Snapshot

_CHECK_S = 1.0  # between two looks at the objects
_written: dict[Path, str] = {}  # path → node of this process that keeps it
_lock = threading.Lock()


class MemoryKeeper:
    """Loads and saves the file of the parameter `load_on_start`.

    With `save_period`, the file is written when the objects have changed, after each period, and
    when tracking stops. If it cannot be loaded, it is never overwritten.

    Arguments:
        name: full name of the node.
        parameters: returns the current parameters; `load_on_start` is not empty.
        session: its objects are saved.
        log: logger.
        on_load: called with the file's name and SHA-256, and the ids and labels loaded.

    Raises:
        MemoryFileNameError, ParameterError: the file's name cannot be used, or another node of this
            process keeps it.
    """

    def __init__(
        self,
        name: str,
        parameters: Callable[[], Parameters],
        session: TrackingSession,
        log: Any,
        on_load: Callable[[str, str, list[int], list[int]], None] = lambda *_: None,
    ) -> None:
        current = parameters()
        self._on_load = on_load
        self._name, self._parameters, self._session, self._log = name, parameters, session, log
        self._path = memory_file(current.memory_folder, current.load_on_start)
        self.not_loaded = self.not_saved = ''  # why
        self._changed = threading.Condition()
        self._worker: Worker | None = None
        self._last: Snapshot | None = None  # state at the end of tracking, to be written
        self._saved: list[tuple[int, str]] = []  # ids and names in the file
        self._saved_at = 0.0
        self._thread: threading.Thread | None = None
        if current.save_period:
            with _lock:
                other = _written.setdefault(self._path, name)
            if other != name:
                raise ParameterError(
                    f'load_on_start: {self._path} is kept by {other} already: give each node a name of its own, in a '
                    f'section {name}: of the parameter file'
                )

    def load(self) -> None:
        """Continue with the objects of the file, if there is one; the reason, if not, is logged."""
        from xmem_ros.tracker import snapshot

        try:
            saved = snapshot.read(self._path, self._session.tracker.fingerprint)
            digest = atomic.sha256_of(self._path)
            ids, labels = self._session.import_state(saved)
        except MemoryFileMissingError:
            self._log.info(f'load_on_start: there is no {self._path} yet; starting without objects')
            return
        except XMemError as error:
            self.not_loaded = f'{error}; starting without objects, and never overwriting it'
            self._log.error(f'load_on_start: {self.not_loaded}')
            return
        self._on_load(self._path.name, digest, ids, labels)
        self._saved = self._objects()
        self._log.info(f'load_on_start: {len(ids)} objects loaded from {self._path}: ids {", ".join(map(str, ids))}')

    def open(self, worker: Worker) -> None:
        """Keep the file current while this worker tracks."""
        if not self._parameters().save_period or self.not_loaded:
            return
        self._worker, self._last, self._saved_at = worker, None, time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(worker,), name='xmem-memory', daemon=True)
        self._thread.start()

    def stop(self, *, idle: bool, patience_s: float = 0.0) -> None:
        """Save for the last time, in the background; call after the worker has been stopped.

        Arguments:
            idle: whether the worker has finished its last frame. If not, the last file stays.
            patience_s: time to wait for the file.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with self._changed:
            if idle and not worker.fault and self._objects() + self._saved:
                try:
                    self._last = self._session.tracker.export_state()
                except Exception as error:  # such as a GPU without memory; the last file stays
                    self._failed(error)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(patience_s)

    def close(self) -> None:
        """Leave the file to other nodes."""
        with _lock:
            if _written.get(self._path) == self._name:
                del _written[self._path]

    def _objects(self) -> list[tuple[int, str]]:
        return [(item.id, item.name) for item in self._session.tracker.objects]

    def _run(self, worker: Worker) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._worker is not worker, timeout=_CHECK_S)
                ended, state = self._worker is not worker, self._last
            if ended:
                if state is not None:
                    self._write(state)
                return
            objects = self._objects()
            period_over = time.monotonic() - self._saved_at >= self._parameters().save_period
            if objects != self._saved or (objects and period_over):
                try:
                    self._write(worker.submit(self._session.tracker.export_state).result())
                except (NodeInactiveError, NodeFaultError):
                    continue  # stopped meanwhile; after a fault, the last file stays
                except Exception as error:  # the next attempt may have memory for it
                    self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.not_saved = str(error) or type(error).__name__
        self._log.error(f'save_period: the objects were not saved: {self.not_saved}', throttle_duration_sec=60.0)

    def _write(self, state: Snapshot) -> None:
        from xmem_ros.tracker import snapshot

        try:
            snapshot.write(state, self._path)
        except (XMemError, OSError) as error:
            self._failed(error)
        else:
            self.not_saved = ''
            self._saved = [(entry.id, entry.name) for entry in state.table.entries]
        self._saved_at = time.monotonic()
