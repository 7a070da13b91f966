# SPDX-License-Identifier: MIT
"""Masks that begin or correct objects, and everything that can be wrong with them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xmem_ros.checks import LARGEST_ID, checked_ids, is_whole, name_fault
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
    seeds = list(seeds) if isinstance(seeds, Iterable) else None
    if seeds is None or not all(isinstance(seed, SeedMask) for seed in seeds):
        raise SeedError('masks are given as {name: mask}, {id: mask} or a list of SeedMask')
    for number, seed in enumerate(seeds, 1):
        if not isinstance(seed.name, str):
            raise SeedError(f'seed {number}: its name is {quoted(seed.name)}; give a text, empty for none')
        if fault := name_fault(seed.name):
            raise SeedError(f'seed {number}: {fault}')
        if not is_whole(seed.id) or not 0 <= seed.id <= LARGEST_ID:
            raise SeedError(f'seed {number}: its id is {quoted(seed.id)}; give 0 for a new object, or the id of one')
    check_ids([seed.id for seed in seeds], table)
    checked: list[SeedMask] = []
    covered = np.zeros(frame_size, bool)
    for number, seed in reversed(list(enumerate(seeds, 1))):
        who = f'seed {number}' + (f' ({quoted(seed.name)})' if seed.name else '')
        mask = check_mask(seed.mask, frame_size, who) & ~covered
        if not mask.any():
            raise SeedError(
                f'{who}: its mask is empty (or covered by later ones); mark at least one pixel of the object'
            )
        covered |= mask
        checked.append(SeedMask(mask, seed.name, int(seed.id)))
    return checked[::-1]


def check_ids(ids: Sequence[int], table: ObjectTable) -> None:
    """Whether objects of these ids can be seeded in one call, 0 standing for a new one each.

    Raises `UnknownObjectError`; `SeedError` for an id that comes twice, and where there is no room.
    """
    ids = checked_ids(ids, 0)
    corrected = [object_id for object_id in ids if object_id]
    table.check_known(corrected)
    if len(set(corrected)) < len(corrected):
        raise SeedError(f'an id is corrected twice in one call: {listed(corrected)}; give one mask for each object')
    table.check_room(len(ids) - len(corrected))


def check_labels(labels: object, frame_size: tuple[int, int]) -> np.ndarray:
    """What `step` said of a frame of this size (H, W); raises `SeedError` for anything else."""
    found = _array(labels)
    if found is None or found.dtype.kind not in 'biu':
        raise SeedError(f'labels are {_described(labels, found)}; give the H×W whole numbers that step returned')
    if found.shape != frame_size:
        raise SeedError(f'labels are {found.shape}, the frame is {frame_size}; both must be H×W of the same frame')
    return found


def check_mask(mask: object, frame_size: tuple[int, int], who: str) -> np.ndarray:
    """H×W bool of a mask in a frame of this size; raises `SeedError`, which begins with whose it is."""
    found = _array(mask)
    if found is None or found.dtype.kind not in 'biuf':
        raise SeedError(f'{who}: its mask is {_described(mask, found)}; give H×W bool or numbers, non-zero = object')
    if found.dtype.kind == 'f' and np.isnan(found).any():
        raise SeedError(f'{who}: its mask holds NaN; give 0 for what is not the object')
    if found.shape != frame_size:
        raise SeedError(f'{who}: its mask is {found.shape}, but the frame is {frame_size} (H, W); make them equal')
    return found != 0


def _array(given: object) -> np.ndarray | None:
    """None for what NumPy makes no array of, such as rows of different lengths or a tensor on a GPU."""
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError):
        return None


def _described(given: object, found: np.ndarray | None) -> str:
    if isinstance(given, np.ndarray) and found is not None:
        return f'an array of shape {found.shape} and type {found.dtype}'
    return quoted(given)


def _named_seed(key: object, mask: np.ndarray) -> SeedMask:
    if isinstance(key, str):
        return SeedMask(mask, name=key)
    if is_whole(key) and 1 <= key <= LARGEST_ID:  # type: ignore[operator]
        return SeedMask(mask, id=int(key))  # type: ignore[call-overload]
    raise SeedError(
        f'a mask is given under {quoted(key)}: use a name for a new object, or the id (from 1) of a known one'
    )
