# SPDX-License-Identifier: MIT
"""What a live node said of a replayed bag, written to files by the sinks of offline runs."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rclpy.serialization import serialize_message

from xmem_ros.bags.segments import StoredFrame
from xmem_ros.bags.sinks.bag import BagSink
from xmem_ros.bags.sinks.pictures import OverlaySink, PngSink
from xmem_ros.errors import ParameterError
from xmem_ros.msg import AcceptedSeeds
from xmem_ros.node.compressed import rgb_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from xmem_ros.bags.lockstep import LiveFrame
    from xmem_ros.bags.sinks.base import Sink


class LiveOutput:
    """Files of a replay; a context manager. The folder appears once it is whole, and not at all after an error.

    Arguments:
        out: new or empty folder.
        formats: of bag (the node's topics), png (a palette mask for each image) and overlay (a video).
        node: full name of the node whose topics a bag gets.
        rate: images a second of the video.

    Raises:
        ParameterError: the folder holds something.
    """

    def __init__(self, out: Path, formats: Collection[str], node: str, rate: float) -> None:
        self._out = out.resolve()
        if self._out.exists() and (not self._out.is_dir() or any(self._out.iterdir())):
            raise ParameterError(
                f'{self._out}: is there already and not an empty folder; choose another --out or remove it'
            )
        self._part = self._out.with_name(f'.{self._out.name}.part')
        self._stack = ExitStack()
        self._formats, self._node, self._rate = formats, node, rate
        self._sinks: list[Sink] = []

    def __enter__(self) -> LiveOutput:
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(parents=True)
        try:
            if 'png' in self._formats:
                self._sinks.append(PngSink(self._part, table=True))
            if 'overlay' in self._formats:
                self._sinks.append(OverlaySink(self._part, round(self._rate, 3)))
            if 'bag' in self._formats:
                self._sinks.append(BagSink(self._part, self._node))
        except BaseException:
            shutil.rmtree(self._part, ignore_errors=True)
            raise
        for sink in self._sinks:
            self._stack.enter_context(sink)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._stack.__exit__(kind, *rest)  # type: ignore[arg-type]
            if kind is None:
                if self._out.exists():
                    self._out.rmdir()
                self._part.rename(self._out)
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

    def write(self, frame: LiveFrame) -> None:
        """Add an image."""
        stored = _stored(frame)
        for sink in self._sinks:
            sink.write(stored, rgb_of(frame.frame.message) if sink.needs_image else None)


def _stored(frame: LiveFrame) -> StoredFrame:
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
