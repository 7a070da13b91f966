# SPDX-License-Identifier: MIT
"""Sources of a camera: the rendered scene, a video file or a folder of images."""

from __future__ import annotations

import argparse
import os
from itertools import islice
from typing import TYPE_CHECKING

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import ParameterError, quoted
from xmem_ros.video.clip import Clip

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

SCENE = 'scene'
CLIP_VARIABLE = 'XMEM_ROS_CLIP'  # environment variable: --clip, for an address with a password
MOST_RATE = 1000.0  # frames/s


class Source:
    """Frames of the rendered scene, a video file or a folder.

    Arguments:
        clip: `scene`, or the path of a video file or a folder of images.
        frames: maximum number of frames; 0: all (scene: 150).
        rate: frames/s; 0: the clip's own.
        objects: number of objects of the scene, 1 to 6.
        seed: random seed of the scene.

    Raises:
        FrameError: the file cannot be read.
        ParameterError: a number is out of range.
    """

    def __init__(
        self, clip: str = SCENE, *, frames: int = 0, rate: float = 0.0, objects: int = 3, seed: int = 0
    ) -> None:
        if frames < 0 or not 0 <= rate <= MOST_RATE:
            raise ParameterError(
                f'frames is {frames} and rate is {rate:g}; frames must be at least 0, and rate 0 to {MOST_RATE:g}'
            )
        self.clip: RenderedScene | Clip
        if clip == SCENE:
            self.clip = RenderedScene(frames=frames or 150, objects=objects, seed=seed)
        else:
            self.clip = Clip(clip)
        self.rate = rate or self.clip.rate
        self._given_rate = bool(rate)
        self._frames = frames

    @property
    def scene(self) -> RenderedScene | None:
        """The rendered scene; None for another clip."""
        return self.clip if isinstance(self.clip, RenderedScene) else None

    @property
    def stems(self) -> list[str]:
        """Names of the frames, without suffix."""
        return self.clip.stems if isinstance(self.clip, Clip) else [f'{index:05d}' for index in range(len(self))]

    def time_s(self, index: int) -> float:
        """Return the time of a frame since the first one [s]: a video's own, or by the rate."""
        if isinstance(self.clip, Clip) and not self._given_rate:
            return self.clip.time_ns(index) / 1e9
        return index / self.rate

    def __len__(self) -> int:
        """Return the number of frames."""
        return min(len(self.clip), self._frames) if self._frames else len(self.clip)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name of each frame and the frame H×W×3 uint8 RGB."""
        if isinstance(self.clip, RenderedScene):
            yield from ((f'{index:05d}', frame) for index, (frame, _) in enumerate(self.clip))
        else:
            yield from islice(self.clip, self._frames or None)


def frame_rate(text: str) -> float:
    """Parse a rate in frames/s."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MOST_RATE:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not a rate; give 0 to {MOST_RATE:g} frames/s (0: the clip's own rate)"
        )
    return value


def frame_count(text: str) -> int:
    """Parse a number of frames."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f'{quoted(text)} is not a number of frames; give a whole number from 0 (all)')
    return value


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--clip`, `--frames`, `--rate`, `--objects` and `--scene-seed`."""
    parser.add_argument(
        '--clip',
        default='',
        metavar='PATH|STREAM',
        help="a video file, a folder of images, 'scene' for the rendered scene, or a live stream: a URL (rtsp://…, "
        f'http://…), a camera index (0, or /dev/video0), or - for standard input (default: ${CLIP_VARIABLE}, or scene)',
    )
    parser.add_argument('--frames', type=frame_count, default=0, metavar='N', help='play only the first N frames')
    parser.add_argument(
        '--rate', type=frame_rate, default=0.0, metavar='R', help="frames/s (default: the clip's own; a folder: 30)"
    )
    parser.add_argument(
        '--objects',
        type=int,
        default=3,
        metavar='N',
        help='objects of the rendered scene, 1 to 6 (default: %(default)s)',
    )
    parser.add_argument(
        '--scene-seed', type=int, default=0, metavar='N', help='seed of the rendered scene (default: %(default)s)'
    )


def clip_of(args: argparse.Namespace) -> str:
    """Return the clip or stream that the arguments or the environment name."""
    return args.clip or os.environ.get(CLIP_VARIABLE) or SCENE


def source_of(args: argparse.Namespace) -> Source:
    """Make the source from parsed arguments."""
    return Source(clip_of(args), frames=args.frames, rate=args.rate, objects=args.objects, seed=args.scene_seed)
