# SPDX-License-Identifier: MIT
"""Seeds from a user: mask files, boxes and YAML files, read into a plan. Imports no rclpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.conversions.seeds import BOX, MASK, POINTS
from xmem_ros.data_files import read_yaml
from xmem_ros.errors import SeedError, XMemError, quoted
from xmem_ros.media import check_mask_bytes, objects_of, read_mask
from xmem_ros.recordings import typestore
from xmem_ros.recordings.seed_plan import PlannedSeeds

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIXES = ('.yaml', '.yml')
HIGHEST_ID = 2**32 - 1
_MAX_DIGITS = 9  # digits of an index or a coordinate
_MAX_STAMP_LENGTH = 60  # characters
_ENTRY_KEYS = ('frame', 'stamp', 'objects', 'labels', 'names', 'remove')
_OBJECT_KEYS = ('id', 'name', 'correct', 'mask', 'box', 'points', 'beside')


@dataclass(frozen=True)
class ImageReference:
    """An image, given by its index or its stamp."""

    index: int | None = 0
    stamp_ns: int | None = None


def parse_image_reference(text: str) -> ImageReference:
    """Parse an index such as 12, or a stamp in s such as 1700000000.25; raises `SeedError`."""
    if text.isdecimal() and len(text) <= _MAX_DIGITS:
        return ImageReference(int(text))
    return ImageReference(None, parse_stamp(text))


def parse_stamp(text: str) -> int:
    """Convert seconds with up to nine decimals to nanoseconds, exactly; raises `SeedError`."""
    try:
        value = Decimal(text) if len(text) <= _MAX_STAMP_LENGTH else Decimal('nan')
        if not value.is_finite() or not 0 < value < 2**63:
            raise InvalidOperation
        value *= 1_000_000_000
        if value != value.to_integral_value() or not value < 2**63:
            raise InvalidOperation
    except ArithmeticError:
        raise SeedError(
            f'{quoted(text)} is not an image; give an index from 0 (12) or a stamp in seconds (1700000000.25)'
        ) from None
    return int(value)


def parse_box(text: str) -> tuple[str, tuple[int, ...]]:
    """Parse NAME=X,Y,W,H or X,Y,W,H into name and box [px]; raises `SeedError`."""
    name, _, numbers = text.rpartition('=')
    parts = numbers.split(',')
    if len(parts) != 4 or not all(part.strip().isdecimal() and len(part) <= _MAX_DIGITS for part in parts):
        raise SeedError(f'{quoted(text)} is not a box; give NAME=X,Y,WIDTH,HEIGHT in px, as in cup=183,113,78,78')
    return name, tuple(int(part) for part in parts)


@dataclass
class SeedReader:
    """Reader of all seeds from a user into one plan; assigns ids to their objects."""

    plan: list[PlannedSeeds] = field(default_factory=list)
    ignore_void: bool = False  # whether 255 beside other values of a mask is no object
    _alive: dict[int, str] = field(default_factory=dict)  # id → name
    _used: set[int] = field(default_factory=set)
    _mask_bytes: int = 0  # of all masks in the plan

    def add_masks(
        self,
        path: Path,
        place: ImageReference = ImageReference(),
        names: dict[int, str] | None = None,
        source: str = '',
    ) -> None:
        """Add an object for each value in a mask file; written masks use the same value for it.

        source: entry that names the file, for errors; '' if there is none. Raises `SeedError`.
        """
        try:
            notes: list[str] = []
            objects = objects_of(read_mask(path, notes), ignore_void=self.ignore_void)
            self._hold(objects.values())
        except SeedError as error:
            raise SeedError(f'{path}: {str(error).removeprefix(f"{path}: ")}') from error
        if not objects:
            raise SeedError(f'{path}: the mask shows no object; paint at least one')
        unknown = sorted(set(names or {}) - set(objects))
        if unknown:
            raise SeedError(f'{path}: no object has the value {unknown[0]}; it has {", ".join(map(str, objects))}')
        name_of = {value: (names or {}).get(value, str(value)) for value in objects}
        seeds = tuple(typestore.seed(MASK, name=name_of[value], mask=mask) for value, mask in objects.items())
        ids = tuple(self._begin(name) for name in name_of.values())
        self._add(
            place, seeds, ids, source=f'{source}, {path}' if source else str(path), values=tuple(objects), notes=notes
        )

    def add_box(self, name: str, box: tuple[int, ...], place: ImageReference = ImageReference()) -> None:
        """Add the object inside a box [px]."""
        seed = typestore.seed(BOX, name=name, around=box)
        self._add(place, (seed,), (self._begin(name),), source=f'box {name or ",".join(map(str, box))}')

    def add_file(self, path: Path) -> None:
        """Add the entries of a YAML file, see docs/bags.md; `SeedError` names the entry."""
        try:
            entries = read_yaml(path, SeedError, text_only=True)
        except OSError as error:
            raise SeedError(f'{path}: cannot be read ({error.strerror})') from error
        if not isinstance(entries, list) or not entries:
            raise SeedError(f'{path}: must be a list of entries, each with frame or stamp, and objects or labels')
        for number, entry in enumerate(entries, 1):
            source = f'{path}, entry {number}'
            try:
                self._add_entry(entry, path.parent, source)
            except XMemError as error:
                raise SeedError(f'{source}: {error}') from error

    def _add_entry(self, entry: Any, folder: Path, source: str) -> None:
        _check_keys(entry, _ENTRY_KEYS)
        if ('frame' in entry) == ('stamp' in entry):
            raise SeedError('give either frame (index, from 0) or stamp (seconds)')
        if 'frame' in entry:
            place = ImageReference(_whole(entry['frame'], 'frame'))
        else:
            place = ImageReference(None, parse_stamp(_text(entry['stamp'], 'stamp')))
        if not set(entry) & {'objects', 'labels', 'remove'}:
            raise SeedError('the entry is empty; give objects, labels or remove')
        removed = tuple(self._known(item, 'remove') for item in _items(entry.get('remove', []), 'remove'))
        for object_id in removed:
            if object_id not in self._alive:
                raise SeedError(f'object {object_id} is removed twice; remove it once')
            del self._alive[object_id]
        if removed:
            self._add(place, (), (), source=source, removed=removed)
        if 'names' in entry and 'labels' not in entry:
            raise SeedError('names belongs to labels (value: name); give labels, or omit names')
        if 'labels' in entry:
            names = entry.get('names', {})
            if not isinstance(names, dict):
                raise SeedError('names must be a mapping of value: name, as in {1: cup}')
            named = {_whole(value, 'a value of names'): _text(name, 'a name') for value, name in names.items()}
            self.add_masks(folder / _text(entry['labels'], 'labels'), place, named, source)
        seeds, ids = [], []
        notes: list[str] = []
        for item in _items(entry.get('objects', []), 'objects'):
            seed, object_id = self._object(item, folder, notes)
            seeds.append(seed)
            ids.append(object_id)
        if seeds:
            self._add(place, tuple(seeds), tuple(ids), source=source, notes=notes)

    def _object(self, item: Any, folder: Path, notes: list[str]) -> tuple[Any, int]:
        """Convert an item of `objects` to an xmem_ros/Seed and its id."""
        _check_keys(item, _OBJECT_KEYS)
        kinds = sorted(set(item) & {'mask', 'box', 'points'})
        if len(kinds) != 1:
            raise SeedError('an object needs exactly one of mask, box and points')
        if 'beside' in item and 'points' not in item:
            raise SeedError('beside (points that are not on the object) belongs to points; give points too')
        name = _text(item['name'], 'name') if 'name' in item else ''
        fields: dict[str, Any] = {'name': name}
        if 'correct' in item:
            if 'id' in item:
                raise SeedError('give either id (of a new object) or correct (a known object), not both')
            object_id = self._known(item['correct'], 'correct')
            self._alive[object_id] = name or self._alive[object_id]
            fields['object_id'] = object_id
        else:
            object_id = self._begin(name, _whole(item['id'], 'id') if 'id' in item else 0)
        if 'mask' in item:
            path = folder / _text(item['mask'], 'mask')
            mask = read_mask(path, notes)
            if not mask.any():
                raise SeedError(f'{path}: the mask shows no object; paint it')
            self._hold([mask])
            return typestore.seed(MASK, mask=mask != 0, **fields), object_id
        if 'box' in item:
            box = [_whole(value, 'box') for value in _items(item['box'], 'box')]
            if len(box) != 4:
                raise SeedError('box must be [x, y, width, height] in px')
            return typestore.seed(BOX, around=box, **fields), object_id
        points = [_point(value) for value in _items(item['points'], 'points')]
        beside = [_point(value) for value in _items(item.get('beside', []), 'beside')]
        labels = [1] * len(points) + [0] * len(beside)
        return typestore.seed(POINTS, points=points + beside, point_labels=labels, **fields), object_id

    def _hold(self, masks: Iterable[np.ndarray]) -> None:
        """Count the bytes of masks; raises `SeedError` if the plan's masks need too much memory."""
        self._mask_bytes += sum(mask.size for mask in masks)
        check_mask_bytes(self._mask_bytes)

    def _begin(self, name: str, wanted: int = 0) -> int:
        """Return the id of a new object."""
        object_id = wanted or max(self._used, default=0) + 1
        if object_id in self._used or object_id > HIGHEST_ID:
            raise SeedError(
                f'the id {object_id} is taken, and ids are not reused; to correct the object write correct: {object_id}'
                if object_id in self._used
                else f'the id {object_id} is too large; at most {HIGHEST_ID}'
            )
        self._used.add(object_id)
        self._alive[object_id] = name
        return object_id

    def _known(self, item: Any, what: str) -> int:
        """Return the id of an object, given by id or name."""
        text = _text(item, what)
        found = [object_id for object_id, name in self._alive.items() if text in (name, str(object_id))]
        by_name = [object_id for object_id in found if self._alive[object_id] == text]
        found = by_name or found
        if len(found) != 1:
            known = ', '.join(f'{name} (id {i})' if name else f'id {i}' for i, name in self._alive.items()) or 'none'
            problem = 'several objects have the name' if found else 'no object has the name or id'
            raise SeedError(f'{what}: {problem} {quoted(text)}; objects of earlier entries: {known}')
        return found[0]

    def _add(self, place: ImageReference, seeds: tuple[Any, ...], ids: tuple[int, ...], **more: Any) -> None:
        notes = tuple(more.pop('notes', ()))
        self.plan.append(PlannedSeeds(seeds, ids, place.index, place.stamp_ns, notes=notes, **more))


def _check_keys(item: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(item, dict):
        raise SeedError(f'{quoted(item)} must be a mapping with keys {", ".join(allowed)}')
    unknown = sorted(set(item) - set(allowed))
    if unknown:
        raise SeedError(f'unknown key {quoted(unknown[0])}; allowed: {", ".join(allowed)}')


def _items(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise SeedError(f'{what} is {quoted(value)}; it must be a list')
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise SeedError(f'{what} is {quoted(value)}; it must be text')
    return value


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, str) or not value.isdecimal() or len(value) > 10 or int(value) > HIGHEST_ID:
        raise SeedError(f'{what} is {quoted(value)}; it must be a whole number from 0 to {HIGHEST_ID}')
    return int(value)


def _point(value: Any) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in value)
    except (TypeError, ValueError):
        raise SeedError(f'{quoted(value)} is not a point; give [x, y] in px') from None
    if not np.isfinite([x, y]).all():
        raise SeedError(f'{quoted(value)} is not a point; give [x, y] in px')
    return x, y
