# SPDX-License-Identifier: MIT
"""All footage of a run: what is trained on, and what is held back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xmem_ros.training.bag import is_bag, read_bag
from xmem_ros.training.config import TrainingConfig
from xmem_ros.training.footage import Budget, Footage, FootageError, read_stills, read_videos, sequence_names

LEAST_FRAMES = 2  # of a video, one to seed and one to find


@dataclass
class RunData:
    """Videos and stills to train on, and videos that are not."""

    videos: list[Footage]
    stills: list[Footage]
    held: list[Footage]


def read_data(config: TrainingConfig, root: Path) -> RunData:
    """Look at every file of a run before its first step; raises `FootageError` naming the one that cannot be used."""
    budget = Budget(config.cache_mb << 20)
    videos: list[Footage] = []
    wanted = set(config.leave_out)
    for number, folder in enumerate(config.videos):
        path = root / folder
        if not path.exists():
            raise FootageError(f'{path}: no such folder; `videos` are relative to --data {root}')
        found = [read_bag(path, config.shorter_side, budget)] if is_bag(path) else _sequences(path, config, budget)
        for footage in found:
            footage.weight = config.repeat[number] if config.repeat else 1
        videos += found
    names = {footage.name for footage in videos}
    if unknown := sorted(wanted - names):
        raise FootageError(
            f'{root} has no sequence {", ".join(unknown)} to leave out; there are {", ".join(sorted(names))}'
        )
    held = [footage for footage in videos if footage.name in wanted and footage.frames]
    videos = [footage for footage in videos if footage.name not in wanted]
    if config.hold_back:
        for footage in list(videos):
            cut = round(len(footage.frames) * (1 - config.hold_back))
            if min(cut, len(footage.frames) - cut) < LEAST_FRAMES:
                continue
            held.append(footage.part(f'{footage.name} (end)', cut, len(footage.frames)))
            videos[videos.index(footage)] = footage.part(footage.name, 0, cut)
    for footage in videos:
        if len(footage.frames) < LEAST_FRAMES:
            raise FootageError(f'{footage.name}: {len(footage.frames)} frame with a mask; a video needs {LEAST_FRAMES}')
        if not any(footage.labels[i].any() for i in range(len(footage.labels))):
            raise FootageError(f'{footage.name}: no mask shows an object; label it or leave it out')
    stills = [f for folder in config.stills for f in read_stills(root / folder, config.shorter_side, budget)]
    if not videos and not stills:
        raise FootageError(f'{root}: nothing is left to train on')
    return RunData(videos, stills, held)


def _sequences(path: Path, config: TrainingConfig, budget: Budget) -> list[Footage]:
    # what is held back is read only where it is scored
    unread = () if config.validate_every else tuple(set(config.leave_out) & sequence_names(path))
    found = read_videos(path, config.shorter_side, unread, budget)
    return found + [Footage(name, [], []) for name in unread]
