# SPDX-License-Identifier: MIT
"""Data of a run: footage to train on, and held-back footage for validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xmem_ros.data_files import read_text
from xmem_ros.errors import Setting, naming
from xmem_ros.outside_text import say
from xmem_ros.training.bag import is_bag, read_bag
from xmem_ros.training.config import TrainingConfig
from xmem_ros.training.footage import Budget, Footage, FootageError, read_stills, read_videos, sequence_names

LEAST_FRAMES = 2  # per video: one to seed, one to track


@dataclass
class RunData:
    """Training videos and stills, and held-back videos."""

    videos: list[Footage]
    stills: list[Footage]
    held: list[Footage]


def read_data(config: TrainingConfig, root: Path) -> RunData:
    """Read the files of a run before its first step; raises `FootageError` for an unusable file."""
    budget = Budget(config.cache_mb << 20)
    videos: list[Footage] = []
    wanted = set(config.leave_out)
    for number, folder in enumerate(config.videos):
        path = root / folder
        if not path.exists():
            error = FootageError(f'{path}: no such folder; `videos` are relative to the data folder {root}')
            raise naming(Setting.DATA, error)
        only = _listed(root, config.subsets[number]) if config.subsets else None
        for footage in _videos(path, config, budget, only):
            footage.weight = config.repeat[number] if config.repeat else 1
            footage.stride = config.strides[number] if config.strides else 1
            if footage.name in {other.name for other in videos}:
                footage.name = f'{folder}: {footage.name}'
            videos.append(footage)
    names = {footage.name for footage in videos}
    if unknown := sorted(wanted - names):
        raise FootageError(
            f'{root} has no sequence {", ".join(unknown)} to leave out; its sequences are {", ".join(sorted(names))}'
        )
    held = [footage for footage in videos if footage.name in wanted and footage.frames]
    videos = [footage for footage in videos if footage.name not in wanted]
    for footage in videos:
        if len(footage.frames) < LEAST_FRAMES:
            raise FootageError(
                f'{footage.name}: {len(footage.frames)} frame with a mask; a video needs at least {LEAST_FRAMES}'
            )
        if not _shown(footage):
            raise FootageError(f'{footage.name}: no mask shows an object; label it or leave it out')
    if config.hold_back:
        videos, ends = _without_ends(videos, config.hold_back)
        held += ends
    stills = []
    for number, folder in enumerate(config.stills):
        for still in read_stills(root / folder, config.shorter_side, budget, verify=config.verify):
            still.weight = config.still_repeat[number] if config.still_repeat else 1
            stills.append(still)
    if not videos and not stills:
        raise FootageError(f'{root}: no footage is left to train on')
    return RunData(videos, stills, held)


def _videos(path: Path, config: TrainingConfig, budget: Budget, only: list[str] | None) -> list[Footage]:
    if is_bag(path):
        return read_bag(path, config.shorter_side, budget, config.image_topic)
    # held-back footage is read only if it is scored
    unread = () if config.validate_every else tuple(set(config.leave_out) & sequence_names(path))
    found = read_videos(path, config.shorter_side, unread, budget, only=only, verify=config.verify)
    return found + [Footage(name, [], []) for name in unread]


def _listed(root: Path, name: str) -> list[str] | None:
    """Read the sequence names of a subset, one per line."""
    if not name:
        return None
    try:
        names = read_text(root / name, FootageError).split()
    except (OSError, FootageError) as error:
        raise FootageError(f'{root / name}: not readable as a list of sequences ({error})') from error
    if not names:
        raise FootageError(f'{root / name}: lists no sequence')
    return names


def _without_ends(videos: list[Footage], share: float) -> tuple[list[Footage], list[Footage]]:
    """Split off the ends of videos; a video stays whole if a part would show no object."""
    beginnings, ends = [], []
    for footage in videos:
        count = len(footage.frames)
        cut = round(count * (1 - share))
        begin, end = footage.part(footage.name, 0, cut), footage.part(f'{footage.name} (end)', cut, count)
        if min(cut, count - cut) < LEAST_FRAMES or not _shown(begin) or not _shown(end):
            say(f'{footage.name}: not held back: too short, or one part would show no object; trained on as a whole')
            beginnings.append(footage)
            continue
        beginnings.append(begin)
        ends.append(end)
    return beginnings, ends


def _shown(footage: Footage) -> bool:
    return any(footage.labels[i].any() for i in range(len(footage.labels)))
