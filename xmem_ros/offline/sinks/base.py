# SPDX-License-Identifier: MIT
"""Base class of all sinks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from xmem_ros.offline.segments import StoredFrame


class Sink(ABC):
    """Writer of one output format; a context manager that aborts on an exception."""

    needs_image = False  # whether `write` needs the image
    needs_originals = False  # whether `original` needs every message of the bag

    @abstractmethod
    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:
        """Write the next tracked image; image: H×W×3 uint8 RGB."""

    def original(self, connection: Any, received_ns: int, raw: bytes) -> None:  # noqa: B027 # optional
        """Write a message of the recording, before its results; connection: of rosbags."""

    def finish(self) -> None:  # noqa: B027 # optional
        """Complete the output."""

    def abort(self) -> None:  # noqa: B027 # optional
        """Close the files; the output is discarded."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()
