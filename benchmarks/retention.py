# SPDX-License-Identifier: MIT
"""Memory policies after a long absence: recovery of the object, and false detections meanwhile.

    python benchmarks/retention.py --data DAVIS_TRAIN [--absent 1500] [--jobs 2] [--json FILE]

A clip shows an object for `--seen` frames (a held-back sequence, back and forth), then `--absent`
frames of other footage, shuffled by sequence, then new frames of the object. Each sequence gives
two clips, forwards and backwards, or four, with both mirrored. Long-term memory is small enough to
evict several times its size.

An object counts as tracked or recovered at IoU 0.5 and more. Absent means OCCLUDED or LOST,
compared with the ground truth of all frames. Clips already in FILE are not run again.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from xmem_ros.atomic import write_text
from xmem_ros.threads import wait_asleep

wait_asleep()

import cv2
import numpy as np
from tqdm import tqdm

from xmem_ros.errors import XMemError
from xmem_ros.training.footage import Footage, read_videos

HELD_BACK = ('bmx-bumps', 'dog-agility', 'drift-turn', 'surf')  # not in the training data of the bundled weights
POLICIES: dict[str, dict[str, Any]] = {
    'published': {'usage': 'all', 'quotas': False, 'guard': False},
    'quotas': {'usage': 'all', 'quotas': True, 'guard': False},
    'own usage': {'usage': 'own', 'quotas': False, 'guard': False},
    'own usage, quotas': {'usage': 'own', 'quotas': True, 'guard': False},
    'own usage, quotas, guard': {'usage': 'own', 'quotas': True, 'guard': True},
    'published, guard': {'usage': 'all', 'quotas': False, 'guard': True},
}
CONTROL = 'default, never absent'  # upper bound: the same clips without the absence
POLICIES[CONTROL] = POLICIES['own usage, quotas, guard']
RIGHT = 0.5  # least IoU of a tracked object
STEADY = 3  # consecutive right frames of a recovery
LEAST_PIXELS = 50  # of a visible object's mask

LEGEND = f"""followed: IoU ≥ {RIGHT} before the absence · right in 10: of those, recovered within 10 frames of the
return · median: frames until then · IoU: of those, mean over the first 10 frames · taken: share of the absence with a
false detection · prec., recall: of "absent", over all frames of all clips"""


@dataclass(frozen=True)
class Settings:
    """Settings of all clips of a run."""

    seen: int
    absent: int
    size: int
    elements: int
    weights: str
    fingerprint: str  # fingerprint of the weights
    held: list[str]  # sequences of objects; the others are footage of the absence
    score: float
    data: str  # folder


@dataclass
class Clip:
    """A clip: frames H×W×3 uint8 RGB and the object's masks H×W bool."""

    name: str
    shown: list[tuple[np.ndarray, np.ndarray]]
    returned: list[tuple[np.ndarray, np.ndarray]]
    between: list[np.ndarray]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from self.shown
        size = self.shown[0][0].shape[1::-1]
        for frame in self.between:
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            yield frame, np.zeros(frame.shape[:2], bool)
        yield from self.returned


def build(held: Footage, others: list[Footage], settings: Settings, variant: int, seed: int) -> Clip:
    """Build variant 0…3 of a sequence's clip: bit 0 backwards, bit 1 mirrored."""
    frames = list(zip(held.frames, [labels > 0 for labels in held.labels], strict=True))
    if variant & 1:
        frames.reverse()
    if variant & 2:
        frames = [(np.ascontiguousarray(f[:, ::-1]), np.ascontiguousarray(m[:, ::-1])) for f, m in frames]
    kept_back = max(10, round(0.3 * len(frames)))
    first = next(i for i, (_, mask) in enumerate(frames) if mask.sum() >= LEAST_PIXELS)
    seen, unseen = frames[first:-kept_back], frames[-kept_back:]
    back_and_forth = seen + seen[-2:0:-1]
    shown = [back_and_forth[i % len(back_and_forth)] for i in range(settings.seen)]
    begin = next(i for i, (_, mask) in enumerate(unseen) if mask.sum() >= LEAST_PIXELS)
    random = np.random.default_rng((seed, variant))
    between: list[np.ndarray] = []
    while len(between) < settings.absent:
        for number in random.permutation(len(others)):
            between += others[number].frames
    kind = ('', ' backwards', ' mirrored', ' backwards, mirrored')[variant]
    return Clip(held.name + kind, shown, unseen[begin : begin + 20], between[: settings.absent])


def run(clip: Clip, policy: str, settings: Settings) -> dict[str, Any]:
    """Track a clip; returns each frame's IoU, score, area and reported visibility."""
    import torch

    from xmem_ros.memory.config import MemoryConfig
    from xmem_ros.objects import ObjectState
    from xmem_ros.tracker import Tracker, TrackerConfig

    torch.set_num_threads(1)
    memory = MemoryConfig(long_term_elements=settings.elements, **POLICIES[policy])
    config = TrackerConfig(size=settings.size, max_objects=1, memory=memory, min_score=settings.score)
    tracker = Tracker.from_weights(settings.weights, device='cpu', config=config)
    out: dict[str, Any] = {'iou': [], 'score': [], 'area': [], 'visible': [], 'truth': []}
    for number, (frame, truth) in enumerate(clip):
        result = tracker.step(frame, {'it': truth} if number == 0 else ())
        (found,) = result.objects
        mask = result.labels > 0
        union = (mask | truth).sum()
        out['iou'].append(round(float((mask & truth).sum() / union), 3) if union else 1.0)
        out['score'].append(round(found.score, 3))
        out['area'].append(found.area)
        out['visible'].append(int(found.state in (ObjectState.NEW, ObjectState.TRACKED)))
        out['truth'].append(int(truth.sum() >= LEAST_PIXELS))
    return out


def summary(trace: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Summarise a clip."""
    iou, visible, truth = (np.array(trace[key]) for key in ('iou', 'visible', 'truth'))
    after = settings.seen + settings.absent
    back = iou[after:]
    hits = [i for i in range(len(back)) if (back[i : i + STEADY] >= RIGHT).all()]
    absent = truth == 0
    away = visible[settings.seen : after]
    return {
        'before': float(iou[settings.seen - 5 : settings.seen].mean()),
        'followed': bool(iou[settings.seen - 5 : settings.seen].mean() >= RIGHT),
        'right_after': hits[0] + 1 if hits else None,
        'iou_after': float(back[:10].mean()),
        'taken_for_it': float(away.mean()) if len(away) else 0.0,
        'absent_hit': int((absent & (visible == 0)).sum()),
        'absent_said': int((visible == 0).sum()),
        'absent_true': int(absent.sum()),
    }


def print_table(results: dict[str, dict[str, Any]], policies: list[str]) -> None:
    """Print one line per policy, over the clips that every policy has run."""
    done = {p: results.get(p, {}) for p in policies}
    names = set.intersection(*(set(r) for r in done.values())) if done else set()
    heads = ('policy', 'clips', 'followed', 'right in 10', 'right', 'median', 'IoU', 'taken', 'prec.', 'recall')
    print(('{:26}' + '{:>12}' * (len(heads) - 1)).format(*heads))
    for policy in policies:
        rows = [done[policy][name] for name in names]
        followed = [r for r in rows if r['followed']]
        soon = [r for r in followed if r['right_after'] is not None and r['right_after'] <= 10]
        right = [r['right_after'] for r in followed if r['right_after'] is not None]
        said, hit, true = (sum(r[key] for r in rows) for key in ('absent_said', 'absent_hit', 'absent_true'))
        cells = (
            len(rows),
            len(followed),
            f'{len(soon)} ({100 * len(soon) / max(len(followed), 1):.0f} %)',
            len(right),
            f'{np.median(right):.0f}' if right else '–',
            f'{np.mean([r["iou_after"] for r in followed]):.3f}' if followed else '–',
            f'{100 * np.mean([r["taken_for_it"] for r in rows]):.1f} %' if rows else '–',
            f'{hit / max(said, 1):.3f}',
            f'{hit / max(true, 1):.3f}',
        )
        print(('{:26}' + '{:>12}' * len(cells)).format(policy, *cells))
    print(LEGEND)


def _work(clip: Clip, policy: str, settings: Settings) -> tuple[str, str, dict[str, Any]]:
    if policy == CONTROL:
        clip, settings = replace(clip, between=[]), replace(settings, absent=0)
    trace = run(clip, policy, settings)
    return policy, clip.name, summary(trace, settings) | {'trace': trace}


def main() -> int:
    """Run the clips under each policy and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder with JPEGImages/SEQ and Annotations/SEQ')
    parser.add_argument(
        '--sequences', nargs='+', default=list(HELD_BACK), help='held-back sequences (default: %(default)s)'
    )
    parser.add_argument('--policies', nargs='+', default=list(POLICIES), choices=list(POLICIES), metavar='POLICY')
    parser.add_argument('--seen', type=int, default=60, help='frames with the object (default: %(default)s)')
    parser.add_argument('--absent', type=int, default=1500, help='frames without the object (default: %(default)s)')
    parser.add_argument('--variants', type=int, default=2, help='clips per sequence, 1 to 4 (default: %(default)s)')
    parser.add_argument('--size', type=int, default=240, help='working size, px (default: %(default)s)')
    parser.add_argument('--elements', type=int, default=2000, help='size of long-term memory (default: %(default)s)')
    parser.add_argument('--score', type=float, default=0.6, help='min_score (default: %(default)s)')
    parser.add_argument('--weights', default='compact', help='name or file (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='processes (default: one per core)')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='store the result of each clip in this file, and resume from it'
    )
    args = parser.parse_args()
    from xmem_ros.tracker import Tracker

    fingerprint = Tracker.from_weights(args.weights, device='cpu').fingerprint
    settings = Settings(
        args.seen,
        args.absent,
        args.size,
        args.elements,
        args.weights,
        fingerprint,
        args.sequences,
        args.score,
        str(args.data.resolve()),
    )
    results: dict[str, dict[str, Any]] = {}
    if args.json and args.json.is_file():
        stored = json.loads(args.json.read_text())
        if stored['settings'] != vars(settings):
            parser.error(f'{args.json} has other settings: {stored["settings"]}; give another file')
        results = stored['results']
    try:
        videos = read_videos(args.data, 256)
    except XMemError as error:
        parser.error(str(error))
    held = [video for video in videos if video.name in args.sequences]
    if missing := set(args.sequences) - {video.name for video in held}:
        parser.error(f'{args.data} has no sequence {", ".join(sorted(missing))}')
    others = [video for video in videos if video.name not in args.sequences]
    clips = [
        build(video, others, settings, variant, seed)
        for seed, video in enumerate(held)
        for variant in range(args.variants)
    ]
    todo = [(c, p) for c in clips for p in args.policies if c.name not in results.get(p, {})]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context('spawn')) as pool:
        futures = [pool.submit(_work, clip, policy, settings) for clip, policy in todo]
        for future in tqdm(as_completed(futures), total=len(futures), unit='clip'):
            policy, name, result = future.result()
            results.setdefault(policy, {})[name] = result
            if args.json:
                write_text(args.json, json.dumps({'settings': vars(settings), 'results': results}))
    print_table(results, args.policies)
    return 0


if __name__ == '__main__':
    sys.exit(main())
