# SPDX-License-Identifier: MIT
"""Make docs/images/tracking.webp: the rendered scene, tracked with the bundled weights.

python docs/images/make_tracking.py
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from xmem_ros.demo.scene import PERIOD, RATE, RenderedScene
from xmem_ros.overlay import draw
from xmem_ros.tracker import SeedMask, Tracker

EVERY = 2  # every second frame is shown; all are tracked


def track_scene(size: tuple[int, int], weights: str) -> tuple[list[Image.Image], float]:
    """Track the scene from seeds in its first frame.

    Returns every second frame with its overlay, and the mean IoU over all frames and objects.
    """
    scene = RenderedScene(size, PERIOD)
    tracker = Tracker.from_weights(weights)
    pictures: list[Image.Image] = []
    overlaps: list[float] = []
    for index, (frame, truth) in enumerate(scene):
        seeds = [SeedMask(truth == k, name) for k, name in enumerate(scene.names, 1)] if index == 0 else []
        result = tracker.step(frame, seeds, time=index / RATE)
        for k, item in enumerate(result.objects, 1):
            found, true = result.labels == item.label, truth == k
            union = np.count_nonzero(found | true)
            overlaps.append(np.count_nonzero(found & true) / union if union else 1.0)
        if index % EVERY == 0:
            pictures.append(Image.fromarray(draw(frame, result.labels, result.objects)))
    return pictures, float(np.mean(overlaps))


def main() -> None:
    """Write the picture and print its size and the mean IoU."""
    parser = argparse.ArgumentParser(description='Make the moving picture of README.md.')
    parser.add_argument('--size', type=int, nargs=2, default=(360, 640), metavar=('H', 'W'), help='px of the scene')
    parser.add_argument('--weights', default='compact', help='name or file (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('tracking.webp'))
    args = parser.parse_args()
    (first, *others), overlap = track_scene(tuple(args.size), args.weights)
    duration = round(1000 * EVERY / RATE)
    first.save(args.out, save_all=True, append_images=others, duration=duration, loop=0, quality=55, method=4)
    print(f'{args.out}: {1 + len(others)} frames, {args.out.stat().st_size / 1e6:.2f} MB, mean IoU {overlap:.3f}')


if __name__ == '__main__':
    main()
