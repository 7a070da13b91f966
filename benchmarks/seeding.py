# SPDX-License-Identifier: MIT
"""Masks from boxes and points against true masks: IoU, points needed, milliseconds.

    python benchmarks/seeding.py --pictures DIR --json FILE
    python benchmarks/seeding.py --videos ROOT --json FILE
    python benchmarks/seeding.py --videos ROOT --track --json FILE

DIR has images/*.jpg and masks/*.png, where each value is an object. ROOT has JPEGImages/SEQ and
Annotations/SEQ; the first frame and the middle one of each sequence are used. GrabCut runs beside
the bundled network. The simulated user gives the first point in the centre of the object, and each
further point in the centre of the largest error (Sofiiuk et al., ICIP 2022).

With --track, J&F of tracking at the default size and memory policy, from the true mask of the first
frame, and from the masks that a box, a point and three points give there.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xmem_ros.threads import wait_asleep

wait_asleep()

import cv2
import numpy as np
import torch

from xmem_ros.atomic import write_text
from xmem_ros.errors import SeedError
from xmem_ros.media import image_files, read_image, read_mask
from xmem_ros.progress import Bar
from xmem_ros.seeding.seeder import BUNDLED, GRABCUT, Seeder, make_seeder

JITTER = 0.1  # of a box's width or height, each side
MOST_POINTS = {BUNDLED: 20, GRABCUT: 5}  # GrabCut takes over a minute for 20
WANTED = 0.85  # IoU
LEAST_AREA = 100  # px of an object


def pictures(root: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, image and mask, H×W bool, of each object of pictures."""
    for image in image_files(root / 'images'):
        yield from _objects(image.stem, read_image(image), read_mask(root / 'masks' / f'{image.stem}.png'))


def videos(root: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, image and mask, H×W bool, of each object in the first and middle frames."""
    for folder in sorted((root / 'JPEGImages').iterdir()):
        files = image_files(folder)
        for image in (files[0], files[len(files) // 2]):
            labels = read_mask(root / 'Annotations' / folder.name / f'{image.stem}.png')
            yield from _objects(f'{folder.name}/{image.stem}', read_image(image), labels)


def _objects(name: str, image: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for value in np.unique(labels[labels > 0]):
        if (labels == value).sum() >= LEAST_AREA:
            yield f'{name}/{value}', image, labels == value


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the IoU of two masks."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def box_of(mask: np.ndarray, jitter: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return the box of a mask, x, y, width, height, with sides displaced at random."""
    ys, xs = np.nonzero(mask)
    sides = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)
    size = np.array([sides[2] - sides[0], sides[3] - sides[1]])
    sides += rng.uniform(-jitter, jitter, 4) * np.tile(size, 2)
    limits = np.tile([mask.shape[1], mask.shape[0]], 2)
    left, top, right, bottom = np.clip(np.round(sides), 0, limits).astype(int).tolist()
    return left, top, right - left, bottom - top


def centre_of_error(true: np.ndarray, found: np.ndarray) -> tuple[tuple[int, int], int]:
    """Return the next point x, y, and whether it is on the object."""
    best = []
    for region in (true & ~found, found & ~true):
        depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        best.append((float(depth.max()), (int(x), int(y))))
    on_object = best[0][0] >= best[1][0]
    return best[0 if on_object else 1][1], int(on_object)


def measured(work: Callable[[], np.ndarray], size: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Return a mask, empty if none was found, and milliseconds."""
    begun = time.perf_counter()
    try:
        mask = work()
    except SeedError:
        mask = np.zeros(size, bool)
    return mask, (time.perf_counter() - begun) * 1000


def run(
    seeder: Seeder, most_points: int, image: np.ndarray, true: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """Segment an object from each kind of prompt."""
    result: dict[str, Any] = {}
    for key, jitter in (('box', 0.0), ('box_jittered', JITTER)):
        box = box_of(true, jitter, rng)
        mask, result[f'{key}_ms'] = measured(lambda box=box: seeder.from_box(image, box), true.shape)
        result[key] = overlap(mask, true)
    mask, points, labels, scores, spent = np.zeros_like(true), [], [], [], []
    for _ in range(most_points):
        point, on_object = centre_of_error(true, mask)
        if point in points:
            break
        points.append(point)
        labels.append(on_object)
        mask, ms = measured(lambda: seeder.from_points(image, np.array(points), np.array(labels)), true.shape)
        scores.append(overlap(mask, true))
        spent.append(ms)
    for count in (1, 3, 5):
        result[f'click_{count}'] = scores[min(count, len(scores)) - 1]
        result[f'click_{count}_ms'] = spent[min(count, len(spent)) - 1]
    reached = [number + 1 for number, score in enumerate(scores) if score >= WANTED]
    result['clicks_to_85'] = reached[0] if reached else MOST_POINTS[BUNDLED]
    return result


def track(root: Path, seeder: Seeder) -> dict[str, dict[str, float]]:
    """Track each video from each kind of prompt: prompt → sequence → J&F, percent."""
    from xmem_ros.evaluation.scores import score_masks
    from xmem_ros.tracker import Tracker

    tracker = Tracker.from_weights('compact')
    result: dict[str, dict[str, float]] = {key: {} for key in ('mask', 'box', 'click_1', 'click_3')}
    for folder in Bar(sorted((root / 'JPEGImages').iterdir()), desc='tracking'):
        files = image_files(folder)
        frames = [read_image(path) for path in files]
        truth = [read_mask(root / 'Annotations' / folder.name / f'{path.stem}.png') > 0 for path in files]
        box = box_of(truth[0], 0.0, np.random.default_rng(0))
        seeds = {'mask': truth[0], 'box': seeder.from_box(frames[0], box)}
        mask, points, labels = np.zeros_like(truth[0]), [], []
        for number in range(3):
            point, on_object = centre_of_error(truth[0], mask)
            points.append(point)
            labels.append(on_object)
            mask = seeder.from_points(frames[0], np.array(points), np.array(labels))
            if number != 1:
                seeds[f'click_{number + 1}'] = mask
        for key, seed in seeds.items():
            tracker.reset()
            tracker.step(frames[0], {'object': seed})
            pairs = [
                (np.uint8(tracker.step(frame).labels > 0), np.uint8(true))
                for frame, true in zip(frames[1:], truth[1:], strict=True)
            ]
            ((j, f),) = score_masks(pairs).values()
            result[key][folder.name] = round((j + f) / 2, 2)
    return result


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return means, and of milliseconds medians."""
    return {
        key: round(float((np.median if key.endswith('_ms') else np.mean)([row[key] for row in rows])), 4)
        for key in rows[0]
        if key != 'name'
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--pictures', type=Path)
    source.add_argument('--videos', type=Path)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--seeders', nargs='+', default=[BUNDLED, GRABCUT])
    parser.add_argument('--points', type=int, default=MOST_POINTS[BUNDLED], help='maximum number of points')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--track', action='store_true', help='track the videos from each prompt instead')
    args = parser.parse_args()
    if args.track and not args.videos:
        parser.error('--track needs --videos')
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if args.track:
        tracked = {name: track(args.videos, make_seeder(name)) for name in args.seeders}
        for name, figures in tracked.items():
            means = {key: round(float(np.mean(list(values.values()))), 2) for key, values in figures.items()}
            print(f'{name}: J&F, percent, {means}')
        if args.json:
            write_text(args.json, json.dumps(tracked, indent=1) + '\n')
        return
    examples = list(pictures(args.pictures) if args.pictures else videos(args.videos))
    results, rows = {}, {}
    for name in args.seeders:
        seeder, rng = make_seeder(name), np.random.default_rng(0)
        most = min(MOST_POINTS.get(name, 20), args.points)
        rows[name] = [
            {'name': which, **run(seeder, most, image, true, rng)} for which, image, true in Bar(examples, desc=name)
        ]
        results[name] = summary(rows[name])
    if GRABCUT in results:
        del results[GRABCUT]['clicks_to_85']  # not run to the end
    keys = list(next(iter(results.values())))
    print(f'{len(examples)} objects; IoU, and medians of milliseconds')
    for key in keys:
        print(f'{key:16}' + ''.join(f'{results[name].get(key, float("nan")):12.3f}' for name in args.seeders))
    if args.json:
        bundled = results.pop(BUNDLED, {})
        write_text(args.json, json.dumps({**bundled, **results, 'objects': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
