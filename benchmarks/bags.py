# SPDX-License-Identifier: MIT
"""Long bag with `xmem-ros track`: no lost frame, flat memory, at most one segment lost by SIGKILL.

    python benchmarks/bags.py --frames FOLDER --mask FIRST.png --seconds 600 --out DIR
    python benchmarks/bags.py --seconds 10 --out DIR        # a rendered scene, for a quick test

A bag of the frames, forwards and backwards, is tracked twice: once undisturbed, and once killed
with SIGKILL after half of its segments and restarted. Exit code 1 if a bar is missed:

- every image is tracked,
- resident memory at the end of tracking and of writing is at most 1.05 times
  that after a fifth of it,
- segments that were finished before the kill are not tracked again,
- all files of both runs are equal byte by byte.

Needs `pip install '.[bags,benchmarks]'`.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

try:
    import psutil
except ImportError:
    sys.exit("psutil is not installed: pip install '.[benchmarks]'")

from xmem_ros import work_folder
from xmem_ros.atomic import write_text
from xmem_ros.conversions.seeds import MASK
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.media import image_files, objects_of, read_image, read_mask
from xmem_ros.offline.segments import work_folder_of
from xmem_ros.recordings import typestore

START_NS = 1_700_000_000_000_000_000
TOPIC = '/camera/image_raw'
RSS_BAR = 1.05
FIRST_SHARE = 0.2  # share of the images after which memory must stay flat


@dataclass
class ProcessRecord:
    """Measurements of one process of `xmem-ros track`."""

    seconds: float = 0.0
    code: int = 0
    begun_with: int = 0  # segments from an earlier run
    samples: list[tuple[int, int]] = field(default_factory=list)  # finished segments, resident bytes
    phase: list[tuple[float, int]] = field(default_factory=list)  # seconds, finished segments


def main() -> int:
    """Make the bag, track it, report; returns the exit code."""
    options = parse()
    work_folder.fresh(options.out, 'this benchmark')
    count = round(options.seconds * options.rate)
    bag = options.out / 'recorded'
    begun = time.perf_counter()
    make_bag(bag, options, count)
    made = time.perf_counter() - begun
    plain, killed = options.out / 'plain', options.out / 'killed'
    whole = -(-count // options.segment)
    first = watch(command(bag, plain, options), work_folder_of(plain))
    cut = watch(command(bag, killed, options), work_folder_of(killed), kill_after=max(whole // 2, 1))
    again = watch(command(bag, killed, options), work_folder_of(killed))
    figures = report(options, count, made, first, cut, again, plain, killed)
    print(json.dumps(figures, indent=1))
    if options.json:
        write_text(options.json, json.dumps(figures, indent=1) + '\n')
    return 0 if all(bar['met'] for bar in figures['bars'].values()) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--frames', type=Path, metavar='FOLDER', help='real frames (default: a rendered scene)')
    parser.add_argument('--mask', type=Path, help='label image of the first frame')
    parser.add_argument('--seconds', type=float, default=10.0, help='duration of the bag (default: %(default)s)')
    parser.add_argument('--size', default='640x480', help='WIDTHxHEIGHT of the images (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=30.0, help='images per second (default: %(default)s)')
    parser.add_argument('--compressed', action='store_true', help='JPEG instead of raw images')
    parser.add_argument('--formats', default='bag', help='comma-separated, see xmem-ros track (default: %(default)s)')
    parser.add_argument('--segment', type=int, default=300, help='images per segment (default: %(default)s)')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the bags')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results to this file')
    options = parser.parse_args()
    if (options.frames is None) != (options.mask is None):
        parser.error('--frames and --mask go together')
    return options


def make_bag(path: Path, options: argparse.Namespace, count: int) -> None:
    """Write a bag of images, with seeds of the first one."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    size = tuple(int(part) for part in options.size.split('x'))
    kind = typestore.COMPRESSED_IMAGE if options.compressed else typestore.IMAGE
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection(TOPIC, kind, typestore=typestore.typestore())
        seeds = writer.add_connection('/xmem/seeds', typestore.ACCEPTED_SEEDS, typestore=typestore.typestore())
        for index, (frame, objects) in enumerate(islice(footage(options, size), count)):
            stamp = START_NS + round(index * 1e9 / options.rate)
            header = typestore.header(stamp, 'camera')
            writer.write(
                images, stamp, typestore.serialize(image_message(header, frame, compressed=options.compressed))
            )
            if not index:
                given = [typestore.seed(MASK, name=str(value), mask=mask) for value, mask in objects.items()]
                accepted = typestore.accepted_seeds(header, given, range(1, len(given) + 1), range(1, len(given) + 1))
                writer.write(seeds, stamp + 1, typestore.serialize(accepted))


def footage(options: argparse.Namespace, size: tuple[int, ...]) -> Iterator[tuple[np.ndarray, dict[int, np.ndarray]]]:
    """Yield frames (width, height) forwards and backwards, with the first one's objects."""
    if options.frames is None:
        scene = [(frame, labels) for frame, labels in RenderedScene(size[::-1], frames=90, objects=3)]
        order = cycle([*range(len(scene)), *range(len(scene) - 2, 0, -1)])
        yield from ((scene[place][0], objects_of(scene[0][1])) for place in order)
        return
    files = image_files(options.frames)
    mask = cv2.resize(read_mask(options.mask), size, interpolation=cv2.INTER_NEAREST)
    for place in cycle([*range(len(files)), *range(len(files) - 2, 0, -1)]):
        yield cv2.resize(read_image(files[place]), size, interpolation=cv2.INTER_AREA), objects_of(mask)


def image_message(header: Any, frame: np.ndarray, *, compressed: bool) -> Any:
    """Make sensor_msgs/Image or CompressedImage (JPEG)."""
    if not compressed:
        return typestore.image(header, frame, 'rgb8')
    _, data = cv2.imencode('.jpg', cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return typestore.make(
        typestore.COMPRESSED_IMAGE, header=header, format='rgb8; jpeg compressed bgr8', data=data.ravel()
    )


def command(bag: Path, out: Path, options: argparse.Namespace) -> list[str]:
    wanted = [f'--format={name}' for name in options.formats.split(',')]
    settings = ['--segment', str(options.segment), '--device', options.device]
    return [sys.executable, '-m', 'xmem_ros.cli.main', 'track', str(bag), '--out', str(out), *wanted, *settings]


def watch(arguments: list[str], part: Path, kill_after: int = 0) -> ProcessRecord:
    """Run to the end or until `kill_after` segments, and record memory and progress."""
    record = ProcessRecord(begun_with=whole_segments(part))
    begun = time.perf_counter()
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')])
    process = subprocess.Popen(arguments, env=os.environ | {'PYTHONPATH': path})
    resident = psutil.Process(process.pid)
    while process.poll() is None:
        segments = whole_segments(part)
        try:
            record.samples.append((segments, resident.memory_info().rss))
        except psutil.Error:
            break
        if not record.phase or record.phase[-1][1] != segments:
            record.phase.append((time.perf_counter() - begun, segments))
        if kill_after and segments >= kill_after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.2)
    record.code = process.wait()
    record.seconds = time.perf_counter() - begun
    return record


def whole_segments(part: Path) -> int:
    return len(list(part.glob('segment_*.zip')))


def report(
    options: argparse.Namespace,
    count: int,
    made: float,
    first: ProcessRecord,
    cut: ProcessRecord,
    again: ProcessRecord,
    plain: Path,
    killed: Path,
) -> dict[str, Any]:
    """Collect all figures and bars."""
    summary = json.loads((plain / 'track.json').read_text()) if first.code == 0 else {'tracked': 0}
    whole = -(-count // options.segment)
    settled = max(int(FIRST_SHARE * whole), 1)
    early = [rss for segments, rss in first.samples if 1 <= segments <= settled] or [0]
    middle = [rss for segments, rss in first.samples if segments == max(whole // 2, 1)] or [0]
    late = [rss for segments, rss in first.samples if segments == whole - 1] or [0]
    end = next((rss for _, rss in reversed(first.samples) if rss), 0)  # 0 for a process that has just ended
    tracking = [seconds for seconds, segments in first.phase if segments == whole][:1] or [first.seconds]
    sizes = {
        name: sum(f.stat().st_size for f in (options.out / name).rglob('*') if f.is_file())
        for name in ('recorded', 'plain')
    }
    after_kill = again.begun_with
    writing = [rss for segments, rss in first.samples if segments == whole and rss] or [0]
    begun = writing[int(FIRST_SHARE * len(writing))]  # encoders allocate their memory once
    growth = max(max(late) / max(max(early), 1), writing[-1] / max(begun, 1))
    same = digest(plain) == digest(killed) and first.code == again.code == 0
    bars = {
        'frames lost': {'value': count - summary['tracked'], 'bar': 0, 'met': summary['tracked'] == count},
        'memory': {'value': round(growth, 3), 'bar': RSS_BAR, 'met': 0 < growth <= RSS_BAR or whole < 5},
        'segments kept by -9': {
            'value': after_kill,
            'bar': max(whole // 2, 1),
            'met': cut.code == -signal.SIGKILL and after_kill >= max(whole // 2, 1),
        },
        'equal bytes': {'value': same, 'bar': True, 'met': same},
    }
    return {
        'images': count,
        'size': options.size,
        'formats': options.formats,
        'bag MB': round(sizes['recorded'] / 1e6, 1),
        'results MB': round(sizes['plain'] / 1e6, 1),
        'made in s': round(made, 1),
        'tracked in s': round(first.seconds, 1),
        'images a second': round(count / first.seconds, 2),
        'of it writing in s': round(first.seconds - tracking[0], 1),
        'resident MB': {
            'first segments': round(max(early) / 1e6),
            'middle': round(max(middle) / 1e6),
            'last segment': round(max(late) / 1e6),
            'writing, after a fifth and last': [round(begun / 1e6), round(writing[-1] / 1e6)],
            'end': round(end / 1e6),
            'most': round(max(rss for _, rss in first.samples) / 1e6),
        },
        'killed after s': round(cut.seconds, 1),
        'went on for s': round(again.seconds, 1),
        'bars': bars,
    }


def digest(folder: Path) -> str:
    """Hash names and contents of all files."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob('*')):
        if file.is_file():
            found.update(str(file.relative_to(folder)).encode())
            with file.open('rb') as opened:
                while block := opened.read(1 << 20):
                    found.update(block)
    return found.hexdigest()


if __name__ == '__main__':
    sys.exit(main())
