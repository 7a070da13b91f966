# SPDX-License-Identifier: MIT
"""Rendered scenes as a data set: FOLDER/JPEGImages/scene_SEED/, FOLDER/Annotations/scene_SEED/."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from xmem_ros import atomic
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.media import write_labels
from xmem_ros.progress import Bar


def write_scene(folder: Path, scene: RenderedScene, name: str) -> None:
    """Write all frames and labels of a scene in the layout for training and evaluation."""
    images, masks = folder / 'JPEGImages' / name, folder / 'Annotations' / name
    for path in (images, masks):
        path.mkdir(parents=True, exist_ok=True)
    for number in Bar(range(scene.frames), desc=f'writing {name}', unit='frame'):
        frame, labels = scene[number]
        _, data = cv2.imencode('.png', frame[:, :, ::-1])
        atomic.write_bytes(images / f'{number:05}.png', data.tobytes(), sync=False)
        write_labels(masks / f'{number:05}.png', labels)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Write rendered scenes as videos with masks.')
    parser.add_argument('folder', type=Path, help='folder for JPEGImages and Annotations')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(240, 432), metavar=('H', 'W'), help='size in px (default: 240 432)'
    )
    parser.add_argument(
        '--frames', type=int, default=150, metavar='N', help='frames of each scene (default: %(default)s)'
    )
    parser.add_argument(
        '--objects', type=int, default=3, metavar='N', help='number of objects, 1 to 6 (default: %(default)s)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='seed of the first scene (default: %(default)s)'
    )
    parser.add_argument(
        '--scenes', type=int, default=1, metavar='N', help='number of scenes, with successive seeds (default: 1)'
    )
    args = parser.parse_args()
    for seed in range(args.seed, args.seed + args.scenes):
        scene = RenderedScene(tuple(args.size), args.frames, args.objects, seed)
        write_scene(args.folder, scene, f'scene_{seed}')


if __name__ == '__main__':
    main()
