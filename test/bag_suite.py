# SPDX-License-Identifier: MIT
"""Bags with reference masks, and regression suites of them.

python test/bag_suite.py FOLDER  # writes the rendered scene and a suite.yaml for `xmem-ros regress`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bag_files
import numpy as np
import yaml

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.recordings import typestore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

IMAGE_TOPIC, TRUTH_TOPIC, SEEDS_TOPIC = '/camera/image', '/truth/labels', '/xmem/seeds'
START_NS, FRAME_NS = 1_700_000_000_000_000_000, 33_333_333
MASK = 0  # seed kind


def write_bag(
    path: Path,
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    names: list[str],
    *,
    seed_shift: int = 0,
    compressed: bool = False,
    image_topics: Sequence[str] = (IMAGE_TOPIC,),
    stamp_of: Callable[[int], int] = lambda index: START_NS + index * FRAME_NS,
    truth_stamp_of: Callable[[int], int] | None = None,
    masks: int = 10**9,
    broken: Collection[int] = (),
) -> Path:
    """Write a bag with images, reference masks, and seeds of the first image; return the path.

    Arguments:
        path: folder of the bag; must not exist.
        frames: H×W×3 uint8 RGB with labels H×W uint8; `names[k]` has the label k + 1.
        names: object names.
        seed_shift: shift of the seeds to the right [px], to make a tracker worse.
        compressed: write images and masks as sensor_msgs/CompressedImage, PNG.
        image_topics: topics on which each image is written.
        stamp_of: index of an image → stamp of its header [ns]; times of recording always increase.
        truth_stamp_of: the same for the reference masks; None: the stamps of the images.
        masks: number of images with a reference mask.
        broken: indexes of images with unreadable messages.
    """
    items: list[tuple[str, int, Any]] = []
    for index, (frame, labels) in enumerate(frames):
        received = START_NS + index * FRAME_NS
        header = typestore.header(stamp_of(index), 'camera')
        shown = [(topic, header, frame, 'rgb8') for topic in image_topics]
        if index < masks:
            truth_header = typestore.header((truth_stamp_of or stamp_of)(index), 'camera')
            shown.append((TRUTH_TOPIC, truth_header, labels, 'mono8'))
        for topic, of_it, pixels, encoding in shown:
            made = typestore.png(of_it, pixels) if compressed else typestore.image(of_it, pixels, encoding)
            unreadable = index in broken and topic != TRUTH_TOPIC
            items.append((topic, received, (made.__msgtype__, b'') if unreadable else made))
        if not index:
            shifted = np.roll(labels, seed_shift, axis=1)
            seeds = [typestore.seed(MASK, name=name, mask=shifted == k) for k, name in enumerate(names, 1)]
            ids = list(range(1, len(names) + 1))
            items.append((SEEDS_TOPIC, received + 1, typestore.accepted_seeds(header, seeds, ids, ids)))
    return bag_files.write_bag(path, items, version=9)


def write_scene(path: Path, *, frames: int = 150, size: tuple[int, int] = (120, 216), **options: Any) -> Path:
    """Write a bag of the rendered scene; return the path.

    The scene has three objects, one of which is absent from frame 65 to 105.
    """
    scene = RenderedScene(size, frames=frames)
    return write_bag(path, scene, scene.names, **options)


def write_suite(path: Path, cases: list[dict[str, Any]], **suite: Any) -> Path:
    """Write a suite; return the path."""
    path.write_text(yaml.safe_dump({**suite, 'cases': cases}, sort_keys=False), encoding='utf-8')
    return path


def scene_case(**keys: Any) -> dict[str, Any]:
    """Return a case for the bag `scene` beside the suite.

    With the bundled weights, mean IoU was 0.945 and recovery took 1 frame.
    """
    return {
        'name': 'scene',
        'input': 'scene',
        'reference': {'topic': TRUTH_TOPIC},
        'expect': {'mean_iou': 0.8, 'id_switches': 0, 'lost_objects': 0, 'recovery_frames': 5, 'missing_frames': 0},
        **keys,
    }


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_scene(folder / 'scene')
    print(write_suite(folder / 'suite.yaml', [scene_case(), scene_case(name='scene, live', runner='live')]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
