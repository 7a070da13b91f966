# SPDX-License-Identifier: MIT
"""Output files of a replay, written by the sinks of offline runs."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rclpy.serialization import serialize_message

from xmem_ros import work_folder
from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.errors import OutputError, ParameterError, Setting, naming
from xmem_ros.intensity import IntensityScale
from xmem_ros.msg import AcceptedSeeds
from xmem_ros.offline.destination import check_destination, resolved, work_folder_of
from xmem_ros.offline.run_folder import RESULTS
from xmem_ros.offline.segments import StoredFrame
from xmem_ros.offline.sinks.bag import BagSink
from xmem_ros.offline.sinks.pictures import OverlaySink, PngSink

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from xmem_ros.offline.sinks.base import Sink
    from xmem_ros.replay.lockstep import ReplayedFrame


WORK_FOLDER_SUFFIX = '.replay'  # suffix of a replay's work folder


class ReplayOutput:
    """Output folder of a replay; a context manager. It appears at the end, if nothing has raised.

    Until then the files are in the locked work folder `.NAME.replay` beside it.

    Arguments:
        out: new or empty folder.
        formats: bag (the node's topics), png (a palette mask per image) and overlay (a video).
        node: full name of the node, for the bag's topics.
        rate: of the video [1/s].

    Raises:
        ParameterError: the folder is not empty, another run has this destination, or the work
            folder's name is taken.
        OutputError: the folder cannot be written.
    """

    def __init__(self, out: Path, formats: Collection[str], node: str, rate: float) -> None:
        self._out = resolved(out)
        check_destination(self._out)
        if work_folder.is_ours(tracked := work_folder_of(self._out)):
            text = (
                f'{self._out}: is the destination of an unfinished run of xmem-ros track (work folder {tracked}); '
                'let it finish, resume it with the same command, or choose another destination'
            )
            raise naming(Setting.DESTINATION, ParameterError(text))
        self._part = self._out.with_name(f'.{self._out.name}{WORK_FOLDER_SUFFIX}')
        self._results = self._part / RESULTS
        self._formats, self._node, self._rate = formats, node, rate
        self._sinks: list[Sink] = []
        self._scale = IntensityScale()

    def __enter__(self) -> ReplayOutput:
        with ExitStack() as stack:
            self._begin(stack)
            if 'png' in self._formats:
                self._sinks.append(PngSink(self._results, table=True))
            if 'overlay' in self._formats:
                self._sinks.append(OverlaySink(self._results, round(self._rate, 3)))
            if 'bag' in self._formats:
                self._sinks.append(BagSink(self._results, self._node))
            self._stack = stack.pop_all()
        self._writing = ExitStack()
        for sink in self._sinks:
            self._writing.enter_context(sink)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._stack:
            self._writing.__exit__(kind, *rest)  # type: ignore[arg-type]
            if kind is None:
                self._deliver()

    def _begin(self, stack: ExitStack) -> None:
        """Create and lock the work folder; the stack removes and unlocks it."""
        stack.enter_context(work_folder.claim(self._part, 'another replay'))
        stack.callback(work_folder.remove, self._part)
        try:
            work_folder.empty(self._part)  # may hold files of a killed replay
            self._results.mkdir()
        except OSError as error:
            text = f'{self._results}: cannot be created ({error.strerror}); choose another destination'
            raise naming(Setting.DESTINATION, OutputError(text)) from error

    def _deliver(self) -> None:
        """Rename the results to the destination; on failure keep them beside it."""
        try:
            self._results.rename(self._out)  # replaces an empty folder, and nothing else
        except OSError as error:
            kept = self._out.with_name(f'{self._out.name}.replayed_{os.getpid()}')
            self._results.rename(kept)
            raise OutputError(
                f'{self._out}: another program created it during the replay ({error.strerror}); the results are in '
                f'{kept}'
            ) from error

    def write(self, frame: ReplayedFrame) -> None:
        """Write the results of an image."""
        stored = _to_stored(frame)
        for sink in self._sinks:
            sink.write(stored, rgb_of(frame.frame.message, self._scale) if sink.needs_image else None)


def _to_stored(frame: ReplayedFrame) -> StoredFrame:
    shown = frame.seeded
    accepted = AcceptedSeeds(
        header=frame.header,
        seeds=[item.seed for item in shown],
        ids=[item.id for item in shown],
        labels=[item.label for item in shown],
    )
    return StoredFrame(
        frame.index,
        frame.stamp_ns,
        frame.frame.received_ns,
        frame.header.frame_id,
        frame.frame.name,
        frame.labels,
        frame.labels_with_seeds,
        list(frame.objects),
        {item.id: item.label for item in frame.objects},
        [serialize_message(accepted)] if shown else [],
    )
