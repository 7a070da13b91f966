# SPDX-License-Identifier: MIT
"""Image files, mask files, videos and folders of frames. No ROS, no torch."""

from __future__ import annotations

import functools
import os
import re
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageOps

from xmem_ros import atomic, pictures
from xmem_ros.errors import FrameError, OutputError, SeedError, listed
from xmem_ros.intensity import IntensityScale
from xmem_ros.label_images import REMEDY, hard_labels
from xmem_ros.overlay import PALETTE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
FOLDER_RATE = 30.0  # frames per second of a folder
VOID = 255
_MAX_UNREADABLE = 20  # consecutive frames of a video, after which it counts as ended
MAX_MASK_BYTES = 1 << 30  # of all masks in memory at once, one byte for each object and pixel

# OpenCV's FFmpeg also reads playlists and opens the files and URLs in them; this allows only
# video containers.
_CONTAINERS = 'mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,flv,ogg,asf,h264,hevc,mjpeg,m4v,mxf'
os.environ.setdefault('OPENCV_FFMPEG_CAPTURE_OPTIONS', f'protocol_whitelist;file|format_whitelist;{_CONTAINERS}')


def natural_order(name: str) -> tuple[object, ...]:
    """Sort key by which frame_2 comes before frame_10."""
    parts = re.split('([0-9]+)', name)
    digits = [part.lstrip('0') for part in parts[1::2]]
    numbers = [(len(part), part) for part in digits]  # as numbers; int() refuses very long ones
    pairs = zip_longest(parts[::2], numbers, fillvalue=(0, ''))
    return (*(item for pair in pairs for item in pair), name)


def image_files(folder: Path) -> list[Path]:
    """Return the folder's image files in natural order of names, without hidden files."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    found = [file for file in files if file.is_file() and not file.name.startswith('.')]
    return sorted(found, key=lambda file: natural_order(file.name))


def order_note(files: Sequence[Path]) -> str:
    """Return a sentence if the natural order of files is not that of their characters, else ''."""
    if [file.name for file in files] == sorted(file.name for file in files):
        return ''
    shown = listed([file.name for file in files], 3)
    return f'{files[0].parent}: the numbers in the names give the order, not their characters: {shown}'


def read_image(path: Path, first: Path | None = None) -> np.ndarray:
    """Read an image, H×W×3 uint8 RGB.

    Arguments:
        path: the image.
        first: image of the same sequence whose values give the range of images of more than 8 bits;
            None: the image itself.

    Raises:
        FrameError: missing, damaged, truncated or too large.
    """
    pixels = read_pixels(path)
    if pixels.dtype == np.uint8:
        return pixels
    return _grey_to_rgb(_scale_of(first or path).apply(pixels, str(pixels.dtype)))


@functools.lru_cache(maxsize=256)
def _scale_of(first: Path) -> IntensityScale:
    scale = IntensityScale()
    pixels = read_pixels(first)
    scale.apply(pixels, str(pixels.dtype))
    return scale


def _grey_to_rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def read_pixels(path: Path) -> np.ndarray:
    """Read an image without reducing its bits.

    Returns:
        H×W×3 uint8 or uint16 RGB, or H×W uint16, int32 or float32.

    Raises:
        FrameError: missing, damaged, truncated or too large.
    """
    try:
        with pictures.opened(path) as image:
            return pictures.deep_pixels(image) if pictures.bits_of(image) > 8 else _eight_bits(image)
    except FileNotFoundError:
        raise FrameError(f'{path}: no such image file; check the path') from None
    except PermissionError as error:
        raise FrameError(f'{path}: not a readable image ({error}); allow reading it (chmod u+r)') from error
    except pictures.PictureError as error:
        raise FrameError(f'{path}: not a readable image ({error}); replace or remove the file') from error
    except FrameError as error:
        raise FrameError(f'{path}: {error}') from error


def _eight_bits(image: Image.Image) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(image).convert('RGB'))


def read_mask(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """Read a label image, H×W uint8.

    A palette or grey image gives its values, a one-bit image 0 and 255.

    Arguments:
        path: the file.
        notes: accepts masks with soft edges or from a JPEG, which get hard edges, and receives a
            sentence about it; None: they are refused.

    Raises:
        SeedError: missing, damaged, too large, in colour, or not a label image (see
            `label_images.hard_labels`).
    """
    try:
        with pictures.opened(path) as image:
            mask, mode, lossy = _mask_values(image), image.mode, image.format in ('JPEG', 'MPO', 'WEBP')
        if mode in ('P', '1') or not mask.any():
            return mask
        labels, note = hard_labels(mask, lossy=lossy)
    except FileNotFoundError:
        raise SeedError(f'{path}: no such mask file; give a palette, grey or one-bit PNG') from None
    except PermissionError as error:
        raise SeedError(f'{path}: not a readable mask ({error}); allow reading it (chmod u+r)') from error
    except pictures.PictureError as error:
        raise SeedError(f'{path}: not a readable mask ({error}); replace or remove the file') from error
    except (FrameError, SeedError) as error:
        raise SeedError(f'{path}: {error}') from error
    if note and notes is None:
        raise SeedError(f'{path}: {note.partition(",")[0]}; {REMEDY}')
    if note and notes is not None:
        notes.append(f'{path}: {note}')
    return labels


def _mask_values(image: Image.Image) -> np.ndarray:
    if image.mode in ('P', 'L'):
        return np.array(image)
    if image.mode == '1':
        return np.array(image.convert('L'))
    values = np.array(image.convert('RGB')) if image.mode in ('RGB', 'RGBA', 'LA') else np.array(image)
    if values.ndim == 3 and (values == values[..., :1]).all():
        return np.ascontiguousarray(values[..., 0])
    if values.ndim == 2 and values.dtype.kind in 'iu' and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    kind = 'a colour image' if values.ndim == 3 else f'an image with values from {values.min()} to {values.max()}'
    raise FrameError(f'{kind}; a mask is a palette, grey or one-bit PNG whose values, 0 to 255, are the objects')


def objects_of(mask: np.ndarray, *, ignore_void: bool = False) -> dict[int, np.ndarray]:
    """Split a label image H×W uint8 into objects: value → H×W bool, in order of value.

    0 is background. 255 as the only value is one object of value 1.

    Arguments:
        mask: the label image.
        ignore_void: whether 255 beside other values is no object.

    Raises:
        SeedError: the masks would take more than `MAX_MASK_BYTES`.
    """
    values = [value for value in np.unique(mask).tolist() if value]
    if values == [VOID]:
        return {1: mask == VOID}
    check_mask_bytes(len(values) * mask.size)
    return {value: mask == value for value in values if value != VOID or not ignore_void}


def check_mask_bytes(size: int) -> None:
    """Raise `SeedError` for masks of more than `MAX_MASK_BYTES` together."""
    if size > MAX_MASK_BYTES:
        raise SeedError(
            f'the masks take {size / 1e9:.1f} GB (one byte for each object and pixel); at most '
            f'{MAX_MASK_BYTES / 1e9:.1f} GB are allowed: give fewer objects, or smaller images'
        )


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels H×W uint8 atomically as a palette PNG in the overlay's colours."""
    image = Image.fromarray(labels, mode='L')
    image.putpalette(PALETTE.tobytes())
    with atomic.writing(path, sync=False) as part:
        image.save(part, format='PNG')


class Clip:
    """Frames of a video file, or of a folder of images in natural order of names.

    `len()` is the number of frames; for a video, the header's, which can be wrong. The name of a
    frame is its file's stem or, in a video, its five-digit number.

    Raises:
        FrameError: missing, without frames, or unreadable.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.missing = 0  # frames that a video lacks compared with its header, once all are read
        self.notes: list[str] = []  # on the order of the frames
        self._files: list[Path] = []
        self.rate = FOLDER_RATE
        if self.path.is_dir():
            self._files = image_files(self.path)
            self._length = len(self._files)
            if not self._files:
                raise FrameError(f'{self.path}: no images in this folder ({", ".join(IMAGE_SUFFIXES)} are read)')
            self.notes += filter(None, [order_note(self._files)])
            for earlier, later in pairwise(self._files):
                if earlier.stem == later.stem:
                    raise FrameError(f'{later}: {earlier.name} differs only in the suffix; keep one of them')
            return
        if not self.path.is_file():
            raise FrameError(f'{self.path}: no such video or folder; give a video file or a folder of images')
        video = self._open()
        try:
            pictures.check_pixels(int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        except FrameError as error:
            video.release()
            raise FrameError(f'{self.path}: its frames are {error}; scale the video down') from error
        rate = video.get(cv2.CAP_PROP_FPS)
        if 0 < rate < 1000:
            self.rate = rate
        count = video.get(cv2.CAP_PROP_FRAME_COUNT)
        # the header is untrusted, but a frame takes at least one byte
        self._length = int(min(count, self.path.stat().st_size)) if count > 0 else 0
        video.release()

    def _open(self) -> cv2.VideoCapture:
        # other backends treat a name as a pattern, or print untrusted bytes of the file
        backend = cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends() else cv2.CAP_ANY
        with atomic.utf8_name(self.path) as name:
            video = cv2.VideoCapture(os.fspath(name), backend)
        if not video.isOpened():
            raise FrameError(
                f'{self.path}: OpenCV cannot open this video; convert it to H.264 in MP4 or give a folder of frames'
            )
        return video

    def __len__(self) -> int:
        return self._length

    @property
    def stems(self) -> list[str]:
        """Names of the frames; for a video, according to its header."""
        return [file.stem for file in self._files] or [f'{index:05d}' for index in range(self._length)]

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
        for file in self._files:
            try:
                pixels = read_pixels(file)
                yield file.stem, pixels if deep else _grey_to_rgb(scale.apply(pixels, str(pixels.dtype)))
            except FrameError as error:
                yield file.stem, error
        if self._files:
            return
        video = self._open()
        index = failed = 0  # failed: consecutive frames that could not be decoded, after `index`
        self.missing = 0
        try:
            while failed <= _MAX_UNREADABLE:
                try:
                    read, frame = video.read()
                except cv2.error as error:
                    raise FrameError(f'{self.path}: frame {index} cannot be decoded ({error.err})') from error
                if not read:
                    failed += 1
                    continue
                for number in range(index, index + failed):
                    yield f'{number:05d}', FrameError(f'{self.path}: frame {number} cannot be decoded')
                index, failed = index + failed, 0
                yield f'{index:05d}', cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                index += 1
        finally:
            video.release()
        if not index:
            raise FrameError(f'{self.path}: no frame of this video can be read; convert it to H.264 in MP4')
        self.missing = max(self._length - index, 0)


class VideoWriter:
    """Writer of frames H×W×3 uint8 RGB to an MPEG-4 video (.mp4); a context manager.

    The file appears at the end of the context, unless its block raises.

    Raises:
        FrameError: OpenCV cannot write to the file.
        OutputError: frames are missing in the file, for example because the disk is full.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = Path(path)
        self.rate = round(rate, 3 if rate < 65 else 2 if rate < 650 else 1)  # MPEG-4: denominator up to 65535
        self._count = 0  # frames
        self._file: atomic.Replacement | None = None
        self._video: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, H×W×3 uint8 RGB, of the first one's size."""
        if self._video is None:
            size = (frame.shape[1], frame.shape[0])
            try:
                self._file = atomic.Replacement(self.path, suffix='.mp4', sync=False)
            except OSError as error:
                raise FrameError(
                    f'{self.path}: this video cannot be written ({error.strerror}); choose another file'
                ) from error
            with atomic.utf8_name(self._file.path) as name:
                self._video = cv2.VideoWriter(os.fspath(name), cv2.VideoWriter.fourcc(*'mp4v'), self.rate, size)
            if not self._video.isOpened():
                raise FrameError(f'{self.path}: OpenCV cannot write this video; check that the folder is writable')
        self._video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._count += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if self._video is not None:
            # other backends estimate the number of frames
            exact = self._video.isOpened() and self._video.getBackendName() == 'FFMPEG'
            self._video.release()
            if kind is None:
                self._check(exact=exact)
                self._file.commit()
        if kind is not None:
            self._file.discard()

    def _check(self, *, exact: bool) -> None:
        """Check the number of frames, since OpenCV does not report failed writes."""
        assert self._file is not None
        with atomic.utf8_name(self._file.path) as name:
            video = cv2.VideoCapture(os.fspath(name))
        opened = video.isOpened()
        found = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if opened else 0
        video.release()
        if not opened or (exact and found != self._count):
            self._file.discard()
            raise OutputError(
                f'{self.path}: only {found} of {self._count} frames could be written; free disk space and try again'
            )
