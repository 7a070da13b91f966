# SPDX-License-Identifier: MIT
"""What a camera can play: the rendered scene, a video file or a folder of frames."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import ParameterError
from xmem_ros.media import Clip

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

SCENE = 'scene'


class Source:
    """Frames of the rendered scene or of a file, one like the other.

    Arguments:
        clip: `scene`, or the path of a video file or a folder of frames.
        frames: how many of its frames at most; 0 = all (of the scene: 150).
        rate: frames a second; 0 = the clip's own.

    Raises:
        FrameError: the file cannot be read.
        ParameterError: a number is out of range.
    """

    def __init__(
        self, clip: str = SCENE, *, frames: int = 0, rate: float = 0.0, objects: int = 3, seed: int = 0
    ) -> None:
        if frames < 0 or not 0 <= rate <= 1000:
            raise ParameterError(f'{frames} frames at a rate of {rate}; both are at least 0, and the rate at most 1000')
        self.clip: RenderedScene | Clip
        if clip == SCENE:
            self.clip = RenderedScene(frames=frames or 150, objects=objects, seed=seed)
        else:
            self.clip = Clip(clip)
        self.rate = rate or self.clip.rate
        self._frames = frames

    @property
    def scene(self) -> RenderedScene | None:
        """The rendered scene, which knows the truth, or None."""
        return self.clip if isinstance(self.clip, RenderedScene) else None

    @property
    def stems(self) -> list[str]:
        """Names of the frames, without suffix."""
        return self.clip.stems if isinstance(self.clip, Clip) else [f'{index:05d}' for index in range(len(self))]

    def __len__(self) -> int:
        """Return the number of frames; of a video, what its header says."""
        return min(len(self.clip), self._frames) if self._frames else len(self.clip)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each frame's name and the frame, H×W×3 uint8 RGB."""
        if isinstance(self.clip, RenderedScene):
            yield from ((f'{index:05d}', frame) for index, (frame, _) in enumerate(self.clip))
        else:
            yield from islice(self.clip, self._frames or None)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--clip`, `--frames`, `--rate`, `--objects` and `--scene-seed`."""
    parser.add_argument(
        '--clip', default=SCENE, help='scene (rendered), a video file or a folder of frames (default: %(default)s)'
    )
    parser.add_argument('--frames', type=int, default=0, metavar='N', help='play the first N frames only')
    parser.add_argument(
        '--rate', type=float, default=0.0, help="frames a second (default: the clip's own; a folder: 30)"
    )
    parser.add_argument(
        '--objects', type=int, default=3, help='objects in the rendered scene, 1 to 6 (default: %(default)s)'
    )
    parser.add_argument('--scene-seed', type=int, default=0, help='another rendered scene (default: %(default)s)')


def source_of(args: argparse.Namespace) -> Source:
    """Make the source that parsed arguments ask for."""
    return Source(args.clip, frames=args.frames, rate=args.rate, objects=args.objects, seed=args.scene_seed)
