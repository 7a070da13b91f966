# SPDX-License-Identifier: MIT
"""Reference masks: PNG files by name or stamp, or label images of a bag by stamp."""

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
    'give each image and its mask a unique stamp, or give reference.folder with masks named by frame number (00000.png)'
)


class Masks(Protocol):
    """Reference masks of a recording."""

    damage: str  # why they could not be read completely; '' if they could

    def read(self, name: str, index: int, stamp_ns: int) -> np.ndarray | None:
        """Return the mask of a frame, H×W uint8; None without one.

        Raises:
            FrameError: the mask also belongs to an earlier frame, or cannot be read.
        """

    def sample(self) -> str:
        """Describe the available masks, for the text of an error."""


def open_reference(reference: Reference) -> Masks:
    """Open the reference of a case.

    Raises:
        ParameterError, SeedError, FrameError, BagError: it is absent, empty or unreadable.
    """
    if reference.folder is not None:
        return _FolderMasks(reference.folder)
    assert reference.bag is not None  # the suite was checked
    return _BagMasks(reference.bag, reference.topic)


class VoidValue:
    """Meaning of 255 in a reference: void, or object 1 if the masks have no other value.

    The first mask that is not empty decides for all.
    """

    def __init__(self) -> None:
        self._binary: bool | None = None

    def normalized(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask H×W uint8 with objects 1…254 and void 255."""
        if self._binary is None and mask.any():
            self._binary = not ((mask > 0) & (mask < VOID)).any()
        return (mask == VOID).astype(np.uint8) if self._binary else mask


class _StampPairs:
    """Check that each stamp pairs a mask with a single frame."""

    def __init__(self) -> None:
        self._frames: dict[int, str] = {}  # stamp → name

    def check(self, source: str, name: str, stamp_ns: int) -> None:
        """Pair a frame with the mask of its stamp; raises `FrameError` for a second frame."""
        other = self._frames.setdefault(stamp_ns, name)
        if other != name:
            raise FrameError(
                f'frames {other} and {name} both have the stamp {stamp_ns} ns, but the mask of that stamp in {source} '
                f'can belong to only one; {_BY_NUMBER}'
            )


class _FolderMasks:
    """PNG masks in a folder."""

    damage = ''  # an unreadable file is an error

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ParameterError(f'{folder}: no such folder; reference.folder is a folder of PNG masks')
        self._folder = folder
        self._files = {file.stem: file for file in image_files(folder)}
        self._pairs = _StampPairs()
        if not self._files:
            raise ParameterError(f'{folder}: no PNG masks in this folder; reference.folder is a folder of PNG masks')

    def read(self, name: str, index: int, stamp_ns: int) -> np.ndarray | None:
        seconds, rest = divmod(stamp_ns, NS)
        numbers = [f'{index:0{digits}d}' for digits in range(5, 10)]
        stamps = [str(stamp_ns), f'{seconds}.{rest:09d}'] if stamp_ns else []  # 0: no stamp
        for stem in (name, *stamps, *numbers):
            if stem in self._files:
                if stem in stamps and stem != name:
                    self._pairs.check(str(self._folder), name, stamp_ns)
                return read_mask(self._files[stem])
        return None

    def sample(self) -> str:
        return f'{self._folder} has {listed([file.name for file in self._files.values()], 3)}'


class _BagMasks:
    """Label images of a topic, kept compressed (a few MB), since they can be read in any order."""

    def __init__(self, path: Path, topic: str) -> None:
        from xmem_ros.recordings.recording import open_recording

        self._path, self._topic = path, topic
        self._masks: dict[int, tuple[tuple[int, int], bytes]] = {}
        self._pairs = _StampPairs()
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
                text = f'{path}: {len(faults)} messages of {topic} cannot be read; first: {faults[0].reason}'
                self.damage = f'{self.damage}; {text}' if self.damage else text

    def read(self, name: str, index: int, stamp_ns: int) -> np.ndarray | None:  # noqa: ARG002
        if stamp_ns not in self._masks:
            return None
        self._pairs.check(f'{self._topic} of {self._path}', name, stamp_ns)
        shape, packed = self._masks[stamp_ns]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)

    def sample(self) -> str:
        stamps = sorted(self._masks)
        return f'{self._topic} of {self._path} has {len(stamps)} masks with stamps from {stamps[0]} to {stamps[-1]} ns'


def _check_stamps(source: str, counts: Mapping[int, int]) -> None:
    """Raise `FrameError` for stamps that are 0 or repeated; `counts`: stamp → masks."""
    total = sum(counts.values())
    if unstamped := counts.get(0, 0):
        raise FrameError(f'{source}: {unstamped} of {total} masks have the stamp 0, which means no stamp; {_BY_NUMBER}')
    if repeated := [stamp for stamp, count in counts.items() if count > 1]:
        raise FrameError(
            f'{source}: several of {total} masks have the same stamp; {len(repeated)} stamps are repeated, the first '
            f'is {repeated[0]} ns with {counts[repeated[0]]} masks; {_BY_NUMBER}'
        )


def _mask_of(message: Any) -> np.ndarray:
    """Decode a label image, raw or compressed as PNG, to H×W uint8."""
    if not hasattr(message, 'format'):
        return mask_from_image(message)
    if not bytes(message.data[:8]).startswith(_PNG):
        raise FrameError(f'compressed image of the format {message.format!r}; masks must be lossless: use PNG')
    return rgb_from_compressed(message)[..., 0]
