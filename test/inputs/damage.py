# SPDX-License-Identifier: MIT
"""Inputs of every class, damage in random places, and what is read of them.

The picture of a frame is a disc whose place tells the frame's index. A frame that is given is
compared with that of the undamaged input.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from bag_files import TOPIC, image_message, stamp_of, write_bag, write_chunks, write_without_chunks
from PIL import Image
from video_files import COUNT, KINDS, disc, write_video

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.errors import BagError, FrameError
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import open_recording

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (64, 96)  # H×W
STEP_NS = 1_000_000  # times of Matroska are whole milliseconds
VIDEOS = {
    **KINDS,
    'h264.mkv': ('libx264', 'yuv420p', {}),
    'h264 10 bits.mp4': ('libx264', 'yuv420p10le', {}),
}
_COUNTED = re.compile(r'(\d+) of the (\d+) images')
_OUTSIDE = re.compile(r'(\d+) frames outside its edit list')
BEFORE = 'frames before its first one may be missing'  # so that numbers count from that one
AFTER = 'frames after its last one may be missing'
_TIMES = ('times may be wrong', 'constant rate')


@dataclass
class Outcome:
    """What was read of an input, and what was said.

    Attributes:
        frames: index → stamp [ns] and pixels H×W×3.
        named: frames that are named as lost, or counted as such.
        said: sentences on the recording as a whole.
        reasons: of frames that are named as lost.
        refused: the error of an input that is not read at all.
    """

    frames: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    named: int = 0
    said: str = ''
    reasons: list[str] = field(default_factory=list)
    refused: str = ''


def read(path: Path) -> Outcome:
    """Read an input as `xmem-ros track` does."""
    found = Outcome()
    try:
        with open_recording(path) as recording:
            for frame in recording.frames():
                try:
                    found.frames[frame.index] = (frame.stamp_ns, rgb_of(frame.message))
                except FrameError as error:
                    found.reasons.append(str(error))
            found.reasons += [fault.reason for fault in recording.faults]
            found.said = '; '.join([recording.damage, *recording.notes])
    except (BagError, FrameError) as error:
        found.refused = str(error)
    single = [reason for reason in found.reasons if 'lost with a damaged part' not in reason]  # else counted
    found.named = len(single) + sum(int(there) - int(got) for got, there in _COUNTED.findall(found.said))
    found.named += sum(int(count) for count in _OUTSIDE.findall(found.said))
    return found


# --- inputs: each maker returns what is read, and the files that are damaged


def video(folder: Path, name: str) -> tuple[Path, list[Path]]:
    path = write_video(folder / name, *VIDEOS[name], size=SIZE)
    return path, [path]


def pictures(folder: Path, kind: str) -> tuple[Path, list[Path]]:
    files = []
    for index in range(COUNT):
        frame = disc(index, SIZE)
        file = folder / f'{index:03d}.{kind.partition("16")[0]}'
        if kind.endswith('16'):
            assert cv2.imwrite(str(file), frame[..., 1].astype(np.uint16) * 200)
        else:
            Image.fromarray(frame).save(file)
        files.append(file)
    return folder, files


def bag(folder: Path, storage: str, compression: str, encoding: str) -> tuple[Path, list[Path]]:
    items = []
    for index in range(COUNT):
        frame, header = disc(index, SIZE), typestore.header(stamp_of(index), 'camera')
        if encoding == 'rgb8':
            message = image_message(index, frame)
        else:
            _, data = cv2.imencode(f'.{encoding}', frame[..., ::-1])
            message = typestore.make(typestore.COMPRESSED_IMAGE, header=header, format=encoding, data=data.reshape(-1))
        items.append((TOPIC, stamp_of(index), message))
    own = {'chunks': write_chunks, 'no chunks': write_without_chunks}.get(storage)
    path = write_bag(folder / 'bag', items, storage='mcap' if own else storage, compression='' if own else compression)
    file = next(file for file in path.iterdir() if file.name != 'metadata.yaml')
    if own is write_chunks:
        write_chunks(file, items, compression=compression)
    elif own:
        own(file, items)
    return path, [file]


@dataclass(frozen=True)
class Kind:
    """A class of inputs.

    Attributes:
        make: writes one into a folder.
        checked: whether the format or its decoder notices altered pixels, so that no frame is
            given that differs from the recorded one.
        ordered: whether altered bytes cannot change the order of frames.
        timed: whether they cannot change the time of a frame alone.
    """

    make: Callable[[Path], tuple[Path, list[Path]]]
    checked: bool = False
    ordered: bool = True
    timed: bool = True


CLASSES = {
    **{
        name: Kind(
            lambda to, name=name: video(to, name),
            checked=name == 'av1.mkv',
            ordered=name != 'h264.mkv',  # an altered time can put a frame of a reordered stream elsewhere
            timed=name.endswith('.mp4'),
        )
        for name in VIDEOS
    },
    'folder of PNG': Kind(lambda to: pictures(to, 'png'), checked=True),
    'folder of 16-bit PNG': Kind(lambda to: pictures(to, 'png16'), checked=True),
    'folder of JPEG': Kind(lambda to: pictures(to, 'jpg')),
    'folder of TIFF': Kind(lambda to: pictures(to, 'tif')),
    'folder of 16-bit TIFF': Kind(lambda to: pictures(to, 'tif16')),
    'mcap, chunks': Kind(lambda to: bag(to, 'chunks', '', 'rgb8'), checked=True),
    'mcap, compressed chunks': Kind(lambda to: bag(to, 'chunks', 'zstd', 'rgb8'), checked=True),
    'mcap, chunks without checksums': Kind(lambda to: bag(to, 'mcap', '', 'rgb8'), ordered=False),
    'mcap, no chunks': Kind(lambda to: bag(to, 'no chunks', '', 'rgb8'), ordered=False),
    'mcap, compressed file': Kind(lambda to: bag(to, 'mcap', 'file', 'rgb8'), ordered=False),
    'mcap, compressed messages': Kind(lambda to: bag(to, 'mcap', 'message', 'rgb8'), ordered=False),
    'mcap, PNG images': Kind(lambda to: bag(to, 'no chunks', '', 'png'), checked=True, ordered=False),
    'mcap, JPEG images': Kind(lambda to: bag(to, 'mcap', '', 'jpg'), ordered=False),
    'db3': Kind(lambda to: bag(to, 'sqlite3', '', 'rgb8'), ordered=False),
    'db3, compressed file': Kind(lambda to: bag(to, 'sqlite3', 'file', 'rgb8'), ordered=False),
    'db3, compressed messages': Kind(lambda to: bag(to, 'sqlite3', 'message', 'rgb8'), ordered=False),
    'db3, PNG images': Kind(lambda to: bag(to, 'sqlite3', '', 'png'), checked=True, ordered=False),
}


def damage(data: bytes, chance: random.Random, number: int) -> bytes:
    """Damage one place of a file: random bytes, zeros, one bit, or all that follows."""
    place = chance.randrange(len(data))
    way = ('random', 'zeros', 'random', 'bit', 'cut')[number % 5]
    if way == 'cut':
        return data[:place]
    if way == 'bit':
        return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
    other = bytes(64) if way == 'zeros' else chance.randbytes(16)
    return data[:place] + other[: len(data) - place] + data[place + len(other) :]


@dataclass
class Trial:
    """A damaged input and its undamaged outcome.

    Attributes:
        garbled: indices of frames that are given but differ from the recorded ones.
        misplaced: those of them that equal another frame.
        late: indices of frames with another time, without a sentence about it.
    """

    outcome: Outcome
    garbled: list[int]
    misplaced: list[int]
    late: list[int]


def trials(name: str, folder: Path, places: int) -> list[Trial]:
    """Damage an input of a class in as many places, each in a copy of its own."""
    path, files = CLASSES[name].make(folder)
    whole = read(path)
    assert sorted(whole.frames) == list(range(COUNT))
    assert (whole.named, whole.refused) == (0, '')
    chance = random.Random(name)
    found = []
    for number in range(places):
        file = chance.choice(files)
        data = file.read_bytes()
        file.write_bytes(damage(data, chance, number))
        got = read(path)
        file.write_bytes(data)
        garbled, misplaced, late = [], [], []
        for index, (stamp, pixels) in got.frames.items():
            same = [other for other, (_, given) in whole.frames.items() if np.array_equal(given, pixels)]
            if index not in same:
                garbled.append(index)
                misplaced += [index] if same and BEFORE not in got.said else []
            elif abs(stamp - whole.frames[index][0]) > STEP_NS and not any(text in got.said for text in _TIMES):
                late.append(index)
        found.append(Trial(got, garbled, misplaced, late))
    return found


def main() -> None:
    """Print a row of figures for each class."""
    places = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    print(
        '| input | frames there | read | of them garbled | named as lost | refused files |\n'
        '| --- | --- | --- | --- | --- | --- |'
    )
    for name in CLASSES:
        with tempfile.TemporaryDirectory() as folder:
            found = trials(name, Path(folder), places)
        kept = [trial for trial in found if not trial.outcome.refused]
        given = sum(len(trial.outcome.frames) for trial in kept)
        named = sum(trial.outcome.named for trial in kept)
        garbled = sum(len(trial.garbled) for trial in kept)
        odd = sum(len(trial.outcome.frames) + trial.outcome.named != COUNT for trial in kept)
        misplaced, late = (sum(map(len, each)) for each in zip(*((t.misplaced, t.late) for t in kept), strict=True))
        print(f'| {name} | {places * COUNT} | {given} | {garbled} | {named} | {places - len(kept)} |', end='')
        print(
            f' unequal sums: {odd}, misplaced: {misplaced}, late: {late}' if odd or misplaced or late else '',
            flush=True,
        )


if __name__ == '__main__':
    main()
