# SPDX-License-Identifier: MIT
"""Image files, mask files, and clips: videos and folders of frames. No ROS, no torch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from xmem_ros import atomic, pictures
from xmem_ros.errors import FrameError, SeedError
from xmem_ros.overlay import PALETTE
from xmem_ros.videos import VideoFile

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
FOLDER_RATE = 30.0  # frames per second of a folder
VOID = 255
MAX_MASK_BYTES = 1 << 30  # of all masks that are held at once, one byte a pixel for each object


def image_files(folder: Path) -> list[Path]:
    """Return the folder's image files by name, without hidden files."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(file for file in files if file.is_file() and not file.name.startswith('.'))


def read_image(path: Path) -> np.ndarray:
    """Read an image, H×W×3 uint8 RGB.

    Raises:
        FrameError: missing, damaged, truncated, too large, or more than 8 bits per channel.
    """
    try:
        with pictures.opened(path) as image:
            if image.mode.startswith(('I', 'F')):
                raise FrameError(f'{image.mode} image; only 8 bits per channel are supported, convert it')
            return np.array(ImageOps.exif_transpose(image).convert('RGB'))
    except FileNotFoundError:
        raise FrameError(f'{path}: no such image') from None
    except PermissionError as error:
        raise FrameError(f'{path}: not a readable image ({error}); allow reading it (chmod u+r)') from error
    except pictures.PictureError as error:
        raise FrameError(f'{path}: not a readable image ({error}); replace or remove the file') from error
    except FrameError as error:
        raise FrameError(f'{path}: {error}') from error


def read_mask(path: Path) -> np.ndarray:
    """Read a mask, H×W uint8: the values of a palette, grey or one-bit image (0 and 255).

    Raises:
        SeedError: missing, damaged, too large, or a format that does not keep values exactly.
    """
    try:
        with pictures.opened(path) as image:
            if image.format in ('JPEG', 'MPO', 'WEBP') or image.mode not in ('P', 'L', '1'):
                raise FrameError(
                    f'{image.format} image of mode {image.mode}; '
                    'a mask is a palette, grey (8-bit) or one-bit PNG whose values are the objects'
                )
            return np.array(image.convert('L') if image.mode == '1' else image)
    except FileNotFoundError:
        raise SeedError(f'{path}: no such mask') from None
    except PermissionError as error:
        raise SeedError(f'{path}: not a readable mask ({error}); allow reading it (chmod u+r)') from error
    except pictures.PictureError as error:
        raise SeedError(f'{path}: not a readable mask ({error}); replace or remove the file') from error
    except FrameError as error:
        raise SeedError(f'{path}: {error}') from error


def objects_of(mask: np.ndarray) -> dict[int, np.ndarray]:
    """Split a mask H×W uint8 into objects: value → H×W bool, in order of value.

    0 is background. 255 is void, except in a mask of only 0 and 255: one object of value 1.
    Raises `SeedError` if the masks would take more than `MAX_MASK_BYTES`.
    """
    values = [value for value in np.unique(mask).tolist() if value]
    if values == [VOID]:
        return {1: mask == VOID}
    check_mask_bytes(len(values) * mask.size)
    return {value: mask == value for value in values if value != VOID}


def check_mask_bytes(size: int) -> None:
    """Raise `SeedError` for masks of more than `MAX_MASK_BYTES` together."""
    if size > MAX_MASK_BYTES:
        raise SeedError(
            f'the masks take {size / 1e9:.1f} GB, one byte for each object and pixel; at most '
            f'{MAX_MASK_BYTES / 1e9:.1f} GB are held: give fewer objects, or smaller images'
        )


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels H×W uint8 atomically as a palette PNG in the overlay's colours."""
    image = Image.fromarray(labels, mode='L')
    image.putpalette(PALETTE.tobytes())
    with atomic.writing(path, sync=False) as part:
        image.save(part, format='PNG')


class Clip:
    """Frames of a video file, or of a folder of images by name.

    `len()` is the number of frames, with lost ones of a video. The name of a frame is its file's
    stem or, in a video, its five-digit number.

    Attributes:
        rate: frames/s; of a video the mean.

    Raises:
        FrameError: missing, without frames, or unreadable.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._files: list[Path] = []
        self._video: VideoFile | None = None
        self.rate = FOLDER_RATE
        if self.path.is_dir():
            self._files = image_files(self.path)
            if not self._files:
                raise FrameError(f'{self.path}: no images in this folder ({", ".join(IMAGE_SUFFIXES)} are read)')
            for earlier, later in pairwise(self._files):
                if earlier.stem == later.stem:
                    raise FrameError(f'{later}: {earlier.name} has the same name but for the suffix; keep one of them')
            return
        if not self.path.is_file():
            raise FrameError(f'{self.path}: no such video file or folder of frames')
        self._video = VideoFile(self.path)
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
            deep: give the frames of a video of more than 8 bits as `VideoFile.frames` does.
        """
        size = None
        for name, frame in self._frames(deep=deep):
            if isinstance(frame, FrameError):
                yield name, frame
                continue
            size = size or frame.shape
            if frame.shape == size:
                yield name, frame
            else:
                yield (
                    name,
                    FrameError(
                        f'{self.path}: frame {name} is {frame.shape[1]}×{frame.shape[0]} px, '
                        f'earlier ones {size[1]}×{size[0]}; all frames must have one size'
                    ),
                )

    def _frames(self, *, deep: bool) -> Iterator[tuple[str, np.ndarray | FrameError]]:
        if self._video is not None:
            yield from ((f'{index:05d}', frame) for index, frame in enumerate(self._video.frames(deep=deep)))
        for file in self._files:
            try:
                yield file.stem, read_image(file)
            except FrameError as error:
                yield file.stem, error
