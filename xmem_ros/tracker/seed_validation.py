# SPDX-License-Identifier: MIT
"""Validation of seeds: masks, ids and names that start or correct objects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xmem_ros.checks import LARGEST_ID, checked_ids, is_whole, name_fault
from xmem_ros.errors import SeedError, listed, quoted
from xmem_ros.objects import ObjectTable

NEW_BY_ID = 'give the id 0 to start a new object'


@dataclass(frozen=True)
class SeedMask:
    """Mask of one object in one frame."""

    mask: np.ndarray  # H×W bool, or numbers with non-zero = object
    name: str = ''
    id: int = 0  # 0: a new object, else the object to correct


def check_seeds(
    seeds: Mapping[str | int, np.ndarray] | Sequence[SeedMask], frame_size: tuple[int, int], table: ObjectTable
) -> list[SeedMask]:
    """Validate seeds and return them with masks H×W bool that do not overlap; later masks win.

    frame_size: H, W. Raises `SeedError`, `UnknownObjectError`.
    """
    remedy = NEW_BY_ID
    if isinstance(seeds, Mapping):
        remedy = 'give a name (str) instead of an id to start a new object'
        seeds = [_named_seed(key, mask) for key, mask in seeds.items()]
    seeds = _seed_masks(seeds)
    for number, seed in enumerate(seeds, 1):
        if not isinstance(seed.name, str):
            raise SeedError(f'seed {number}: its name is {quoted(seed.name)}; give a text, empty for none')
        if fault := name_fault(seed.name):
            raise SeedError(f'seed {number}: {fault}')
        if not is_whole(seed.id) or not 0 <= seed.id <= LARGEST_ID:
            raise SeedError(f'seed {number}: its id is {quoted(seed.id)}; give 0 for a new object, or the id of one')
    check_ids([seed.id for seed in seeds], table, remedy)
    checked: list[SeedMask] = []
    covered = np.zeros(frame_size, bool)
    for number, seed in reversed(list(enumerate(seeds, 1))):
        subject = f'seed {number}' + (f' ({quoted(seed.name)})' if seed.name else '')
        mask = check_mask(seed.mask, frame_size, subject) & ~covered
        if not mask.any():
            raise SeedError(
                f'{subject}: its mask is empty, or covered by later masks; mark at least one pixel of the object'
            )
        covered |= mask
        checked.append(SeedMask(mask, seed.name, int(seed.id)))
    return checked[::-1]


def _seed_masks(given: object) -> list[SeedMask]:
    """Return a sequence of `SeedMask` as a list; raises `SeedError` for anything else."""
    allowed = 'give {name: mask}, {id: mask} or a list of SeedMask'
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes)) or hasattr(given, 'shape'):
        raise SeedError(f'masks are {_described(given, _array(given))}; {allowed}')
    seeds = list(given)
    for number, seed in enumerate(seeds, 1):
        if not isinstance(seed, SeedMask):
            raise SeedError(f'item {number} of masks is {_described(seed, _array(seed))}; {allowed}')
    return seeds


def check_ids(ids: Sequence[int], table: ObjectTable, remedy: str = NEW_BY_ID) -> None:
    """Check that objects of these ids can be seeded in one call; 0 stands for a new object.

    remedy: how to start a new object instead, for the error of an unknown id.
    Raises `UnknownObjectError`, `SeedError` for a repeated id, `TooManyObjectsError`.
    """
    ids = checked_ids(ids, 0)
    corrected = [object_id for object_id in ids if object_id]
    table.check_known(corrected, remedy)
    if len(set(corrected)) < len(corrected):
        raise SeedError(
            f'an object is corrected twice in one call: ids {listed(corrected)}; give one mask for each object'
        )
    table.check_room(len(ids) - len(corrected))


def check_labels(labels: object, frame_size: tuple[int, int]) -> np.ndarray:
    """Return labels as an array of `frame_size` (H, W); raises `SeedError` for anything else."""
    array = _array(labels)
    if array is None or array.dtype.kind not in 'biu':
        raise SeedError(f'labels are {_described(labels, array)}; give the H×W whole numbers that step returned')
    if array.shape != frame_size:
        raise SeedError(f'labels are {array.shape}, the frame is {frame_size}; both must be H×W of the same frame')
    return array


def check_mask(mask: object, frame_size: tuple[int, int], subject: str) -> np.ndarray:
    """Return a mask as H×W bool of `frame_size`; raises `SeedError`.

    subject: whose mask it is; the error's text begins with it.
    """
    array = _array(mask)
    if array is None or array.dtype.kind not in 'biuf':
        raise SeedError(
            f'{subject}: its mask is {_described(mask, array)}; give H×W bool or numbers, non-zero = object'
        )
    if array.dtype.kind == 'f' and np.isnan(array).any():
        raise SeedError(f'{subject}: its mask holds NaN; give 0 for pixels outside the object')
    if array.shape != frame_size:
        raise SeedError(f'{subject}: its mask is {array.shape}, but the frame is {frame_size} (H, W); make them equal')
    nonzero: np.ndarray = array != 0
    return nonzero


def _array(given: object) -> np.ndarray | None:
    """Return an array; None if NumPy makes none, as of uneven rows or a tensor on a GPU."""
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError):
        return None


def _described(given: object, array: np.ndarray | None) -> str:
    if isinstance(given, np.ndarray) and array is not None:
        return f'an array of shape {array.shape} and type {array.dtype}'
    return quoted(given)


def _named_seed(key: object, mask: np.ndarray) -> SeedMask:
    if isinstance(key, str):
        return SeedMask(mask, name=key)
    if is_whole(key) and 1 <= key <= LARGEST_ID:  # type: ignore[operator]
        return SeedMask(mask, id=int(key))  # type: ignore[call-overload]
    raise SeedError(
        f'a mask is given under {quoted(key)}: use a name for a new object, or the id (from 1) of a known object'
    )
