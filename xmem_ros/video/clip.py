# SPDX-License-Identifier: MIT
"""Clips: the frames of a video file or of a folder of images. No ROS, no torch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.errors import FrameError
from xmem_ros.intensity import IntensityScale
from xmem_ros.media import (
    FOLDER_RATE,
    IMAGE_SUFFIXES,
    grey_to_rgb,
    image_files,
    order_note,
    other_files_note,
    read_pixels,
)
from xmem_ros.video.reader import VideoFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


class Clip:
    """Frames of a video file, or of a folder of images in natural order of names.

    `len()` is the number of frames, with lost ones of a video. The name of a frame is its file's
    stem or, in a video, its five-digit number.

    Attributes:
        rate: frames/s; of a video the mean.

    Raises:
        FrameError: missing, without frames, or unreadable.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.notes: list[str] = []  # on the order of the frames, and on those that are not read
        self._files: list[Path] = []
        self._video: VideoFile | None = None
        self.rate = FOLDER_RATE
        if self.path.is_dir():
            self._files = image_files(self.path)
            if not self._files:
                raise FrameError(f'{self.path}: no images in this folder ({", ".join(IMAGE_SUFFIXES)} are read)')
            self.notes += filter(None, [order_note(self._files), other_files_note(self.path)])
            for earlier, later in pairwise(self._files):
                if earlier.stem == later.stem:
                    raise FrameError(f'{later}: {earlier.name} differs only in the suffix; keep one of them')
            return
        if not self.path.is_file():
            raise FrameError(f'{self.path}: no such video or folder; give a video file or a folder of images')
        self._video = VideoFile(self.path)
        self.notes += self._video.notes
        if 0 < self._video.rate < 1000:
            self.rate = self._video.rate

    def __len__(self) -> int:
        return len(self._files if self._video is None else self._video)

    def time_ns(self, index: int) -> int:
        """Return the time of a frame since the first one [ns]: the video's own, or by the rate."""
        if self._video is not None and 0 <= index < len(self._video):
            return int(self._video.times_ns[index])
        return round(index * 1e9 / self.rate)

    @property
    def damage(self) -> str:
        """What is wrong with the header of a video; complete once all frames have been read."""
        return '' if self._video is None else self._video.damage

    @property
    def stems(self) -> list[str]:
        """Names of the frames."""
        return [file.stem for file in self._files] or [f'{index:05d}' for index in range(len(self))]

    @property
    def file_names(self) -> dict[str, str]:
        """Frame name → file name of a folder; empty for a video."""
        return {file.stem: file.name for file in self._files}

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and pixels, H×W×3 uint8 RGB, of each frame.

        Raises:
            FrameError: a frame is unreadable, or differs in size from the first.
        """
        for name, frame in self.frames():
            if isinstance(frame, FrameError):
                raise frame
            yield name, frame

    def frames(self, *, deep: bool = False) -> Iterator[tuple[str, np.ndarray | FrameError]]:
        """Yield as `__iter__`, with an error in place of an unusable frame.

        All frames must have the size of the first readable one.

        Arguments:
            deep: leave images of more than 8 bits as they are, see `read_pixels`.
        """
        size = None
        for name, frame in self._frames(IntensityScale(), deep=deep):
            if isinstance(frame, FrameError):
                yield name, frame
                continue
            size = size or frame.shape[:2]
            if frame.shape[:2] == size:
                yield name, frame
            else:
                yield (
                    name,
                    FrameError(
                        f'{self.path}: frame {name} is {frame.shape[1]}×{frame.shape[0]} px, but earlier ones are '
                        f'{size[1]}×{size[0]}; resize it'
                    ),
                )

    def _frames(self, scale: IntensityScale, *, deep: bool) -> Iterator[tuple[str, np.ndarray | FrameError]]:
        for index, frame in enumerate(self._video.frames(deep=True) if self._video is not None else ()):
            if not isinstance(frame, FrameError) and not deep:
                frame = grey_to_rgb(scale.apply(frame, str(frame.dtype)))
            yield f'{index:05d}', frame
        for file in self._files:
            try:
                pixels = read_pixels(file)
                yield file.stem, pixels if deep else grey_to_rgb(scale.apply(pixels, str(pixels.dtype)))
            except FrameError as error:
                yield file.stem, error
