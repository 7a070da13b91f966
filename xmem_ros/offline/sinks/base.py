# SPDX-License-Identifier: MIT
"""What all sinks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from xmem_ros.offline.segments import StoredFrame


class Sink(ABC):
    """Writes results of one kind into a folder. A context manager: finishes them unless it is left by an error."""

    needs_image = False  # whether `write` is to get the image itself
    needs_originals = False  # whether `original` is to get every message of the bag

    @abstractmethod
    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:
        """The next tracked image; image: H×W×3 uint8 RGB."""

    def original(self, connection: Any, received_ns: int, raw: bytes) -> None:  # noqa: B027 # not every kind needs it
        """A message of the recording, before what was tracked in it; connection: rosbags'."""

    def finish(self) -> None:  # noqa: B027 # not every kind needs it
        """All has been written."""

    def abort(self) -> None:  # noqa: B027 # not every kind needs it
        """Close what is open; what was written does not matter any more."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()
