# SPDX-License-Identifier: MIT
"""The masks that are right: PNG files by name or stamp, or label images of a bag by stamp."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xmem_ros.conversions.compressed_images import rgb_from_compressed
from xmem_ros.conversions.images import mask_from_image
from xmem_ros.errors import FrameError, ParameterError, listed
from xmem_ros.media import VOID, image_files, read_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xmem_ros.regress.suite import Reference

NS = 1_000_000_000
_PNG = b'\x89PNG'
_BY_NUMBER = (
    "give each image and its mask a stamp of their own, or the masks as reference.folder, named by the frame's number "
    '(00000.png)'
)


class Masks(Protocol):
    """Reference masks of a recording."""

    damage: str  # why not all of them could be read; '' where they could

    def read(self, name: str, index: int, stamp_ns: int) -> np.ndarray | None:
        """The mask of a frame, H×W uint8; None where there is none for it.

        Raises:
            FrameError: it belongs to an earlier frame, too, or cannot be read.
        """

    def sample(self) -> str:
        """Of what is there, in words, for an error's text."""


def open_reference(reference: Reference) -> Masks:
    """Open what a case names.

    Raises:
        ParameterError, SeedError, FrameError, BagError: it is not there, is empty, or cannot be read.
    """
    if reference.folder is not None:
        return _FolderMasks(reference.folder)
    assert reference.bag is not None  # as the suite was checked
    return _BagMasks(reference.bag, reference.topic)


class Binary:
    """What the values of a reference mean: 255 is void, unless it is the only object there is; then it is object 1.

    The first mask that shows anything decides for all.
    """

    def __init__(self) -> None:
        self._only: bool | None = None

    def values(self, mask: np.ndarray) -> np.ndarray:
        """The mask H×W uint8 with its objects 1…254, 255 void."""
        if self._only is None and mask.any():
            self._only = not ((mask > 0) & (mask < VOID)).any()
        return (mask == VOID).astype(np.uint8) if self._only else mask


class _Stamps:
    """Sees to it that a mask is paired by its stamp with one frame alone."""

    def __init__(self) -> None:
        self._frames: dict[int, str] = {}  # stamp → name

    def check(self, source: str, name: str, stamp_ns: int) -> None:
        """Note that a frame has a mask by its stamp; raises `FrameError` where another frame of that stamp had it."""
        other = self._frames.setdefault(stamp_ns, name)
        if other != name:
            raise FrameError(
                f'frames {other} and {name} both have the stamp {stamp_ns} ns, so that the mask of that stamp in '
                f'{source} is of one of them only; {_BY_NUMBER}'
            )


class _FolderMasks:
    damage = ''  # a file that cannot be read is an error

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ParameterError(f'{folder}: no such folder of reference masks')
        self._folder = folder
        self._files = {file.stem: file for file in image_files(folder)}
        self._stamps = _Stamps()
        if not self._files:
            raise ParameterError(f'{folder}: no PNG masks in this folder')

    def read(self, name: str, index: int, stamp_ns: int) -> np.ndarray | None:
        seconds, rest = divmod(stamp_ns, NS)
        numbers = [f'{index:0{digits}d}' for digits in range(5, 10)]
        stamps = [str(stamp_ns), f'{seconds}.{rest:09d}'] if stamp_ns else []  # 0: it has none
        for stem in (name, *stamps, *numbers):
            if stem in self._files:
                if stem in stamps and stem != name:
                    self._stamps.check(str(self._folder), name, stamp_ns)
                return read_mask(self._files[stem])
        return None

    def sample(self) -> str:
        return f'{self._folder} has {listed([file.name for file in self._files.values()], 3)}'


class _BagMasks:
    """All label images of a topic, compressed, so that they may come in any order; a long bag's take a few MB."""

    def __init__(self, path: Path, topic: str) -> None:
        from xmem_ros.recordings.recording import open_recording

        self._path, self._topic = path, topic
        self._masks: dict[int, tuple[tuple[int, int], bytes]] = {}
        self._stamps = _Stamps()
        counts: Counter[int] = Counter()
        with open_recording(path, topic) as recording:
            for frame in recording.frames():
                try:
                    mask = _mask_of(frame.message)
                except FrameError as error:
                    raise FrameError(f'{path}: {topic} at {frame.stamp_ns} ns: {error}') from error
                counts[frame.stamp_ns] += 1
                self._masks[frame.stamp_ns] = (mask.shape[:2], zlib.compress(mask.tobytes(), 1))
            _check_stamps(f'{path}: {topic}', counts)
            self.damage = recording.damage
            if faults := recording.faults:
                said = f'{path}: {len(faults)} messages of {topic} cannot be read, the first: {faults[0].reason}'
                self.damage = f'{self.damage}; {said}' if self.damage else said

    def read(self, name: str, index: int, stamp_ns: int) -> np.ndarray | None:  # noqa: ARG002
        if stamp_ns not in self._masks:
            return None
        self._stamps.check(f'{self._topic} of {self._path}', name, stamp_ns)
        shape, packed = self._masks[stamp_ns]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)

    def sample(self) -> str:
        stamps = sorted(self._masks)
        return f'{self._topic} of {self._path} has {len(stamps)} masks with stamps from {stamps[0]} to {stamps[-1]} ns'


def _check_stamps(source: str, counts: Mapping[int, int]) -> None:
    """Raise `FrameError` where stamps do not say which image a mask belongs to; counts: stamp → masks."""
    total = sum(counts.values())
    if nothing := counts.get(0, 0):
        raise FrameError(f'{source}: {nothing} of its {total} masks have the stamp 0, which is none; {_BY_NUMBER}')
    if repeated := [stamp for stamp, count in counts.items() if count > 1]:
        raise FrameError(
            f'{source}: {len(repeated)} stamps are of several of its {total} masks, the first is {repeated[0]} ns, of '
            f'{counts[repeated[0]]}; {_BY_NUMBER}'
        )


def _mask_of(message: Any) -> np.ndarray:
    """H×W uint8 of a label image, raw or compressed as PNG."""
    if not hasattr(message, 'format'):
        return mask_from_image(message)
    if not bytes(message.data[:8]).startswith(_PNG):
        raise FrameError(f'a compressed image of the format {message.format!r}; masks are exact as PNG only')
    return rgb_from_compressed(message)[..., 0]
