# SPDX-License-Identifier: MIT
"""Masks that begin or correct objects, and everything that can be wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from xmem_ros.errors import SeedError, listed, quoted
from xmem_ros.objects import ObjectTable


@dataclass(frozen=True)
class SeedMask:
    """One object's mask in one frame."""

    mask: np.ndarray  # H×W bool, or numbers: non-zero = object
    name: str = ''
    id: int = 0  # 0: a new object; otherwise the id to correct


def check_seeds(
    seeds: Mapping[str | int, np.ndarray] | Sequence[SeedMask], frame_size: tuple[int, int], table: ObjectTable
) -> list[SeedMask]:
    """Everything that can be wrong with seeds is found here, before anything changes."""
    if isinstance(seeds, Mapping):
        seeds = [_named_seed(key, mask) for key, mask in seeds.items()]
    if not all(isinstance(seed, SeedMask) for seed in seeds):
        raise SeedError('masks are given as {name: mask}, {id: mask} or a list of SeedMask')
    corrected = [seed.id for seed in seeds if seed.id]
    table.check_known(corrected)
    if len(set(corrected)) < len(corrected):
        raise SeedError(f'an id is corrected twice in one call: {listed(corrected)}; give one mask for each object')
    table.check_room(len(seeds) - len(corrected))
    checked: list[SeedMask] = []
    covered = np.zeros(frame_size, bool)
    for number, seed in reversed(list(enumerate(seeds, 1))):
        who = f'seed {number}' + (f' ({quoted(seed.name)})' if seed.name else '')
        mask = np.asarray(seed.mask)
        if mask.shape != frame_size:
            raise SeedError(f'{who}: its mask is {mask.shape}, but the frame is {frame_size} (H, W); make them equal')
        mask = (mask != 0) & ~covered
        if not mask.any():
            raise SeedError(
                f'{who}: its mask is empty (or covered by later ones); mark at least one pixel of the object'
            )
        covered |= mask
        checked.append(SeedMask(mask, seed.name, seed.id))
    return checked[::-1]


def _named_seed(key: object, mask: np.ndarray) -> SeedMask:
    if isinstance(key, str):
        return SeedMask(mask, name=key)
    if isinstance(key, Integral) and int(key) > 0:
        return SeedMask(mask, id=int(key))
    raise SeedError(
        f'a mask is given under {quoted(key)}: use a name for a new object, or the id (from 1) of a known one'
    )
