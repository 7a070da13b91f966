# SPDX-License-Identifier: MIT
"""Seed plans: the seeds of each image of a recording, from any source. Imports no rclpy."""

from __future__ import annotations

import bisect
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmem_ros.conversions.images import stamp_ns as ns_of
from xmem_ros.errors import BagError, SeedError, Setting, naming
from xmem_ros.recordings import events, typestore
from xmem_ros.recordings.limits import MAX_ALL_SEEDS_BYTES, MAX_POINTS, MAX_SEEDS_BYTES
from xmem_ros.recordings.typestore import ACCEPTED_SEEDS, TRACKING_EVENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xmem_ros.recordings.recording import BagRecording, Recording


@dataclass(frozen=True)
class LoadedFile:
    """A memory file that a recorded node has loaded."""

    name: str  # without its folder
    sha256: str  # hexadecimal
    ids: tuple[int, ...]  # of its objects


@dataclass(frozen=True)
class PlannedSeeds:
    """Seeds of one image, or another change, from a file, the command line or a recording."""

    seeds: tuple[Any, ...]  # xmem_ros/Seed messages; one with an id corrects that object
    ids: tuple[int, ...]  # ids of their objects, in order, as in the plan and all results
    index: int | None = None  # index of the image; None: use `stamp_ns`
    stamp_ns: int | None = None
    removed: tuple[int, ...] = ()  # ids of objects removed before
    values: tuple[int, ...] = ()  # preferred pixel values of the objects in mask files
    source: str = 'seeds'  # origin, for messages
    received_ns: int | None = None  # recording time, for images without stamps
    guessed: bool = False  # whether the image was chosen by recording time
    recorded: bool = False  # from a recording, where a node accepted it; if unusable now, warn and go on
    notes: tuple[str, ...] = ()  # on masks that were changed when they were read
    reset: bool | None = None  # whether all objects are forgotten before; None: if a recorded id begins again
    loaded: LoadedFile | None = None  # replaces all objects, after the reset
    after: bool = False  # a change after the image of `stamp_ns`, so before the next image


def new_objects(plan: Sequence[PlannedSeeds]) -> int:
    """Return the number of objects that a plan begins."""
    return len({object_id for entry in plan for object_id in entry.ids})


def resolve(plan: Sequence[PlannedSeeds], recording: Recording) -> tuple[dict[int, list[PlannedSeeds]], list[str]]:
    """Find the images of a plan; reads the whole recording if an entry has a stamp.

    Recorded seeds for images without stamps go to the newest image recorded before them.

    Returns:
        Image index → its entries in order, and descriptions of recorded entries without an image.

    Raises:
        SeedError: an image does not exist, or no recorded entry has an image.
    """
    places: dict[int, list[PlannedSeeds]] = {}
    missed: list[str] = []
    stamps = recording.stamps() if any(entry.index is None for entry in plan) else []
    first: dict[int, int] = {}
    for number, stamp in enumerate(stamps):
        if stamp > 0:
            first.setdefault(stamp, number)
    plan = _with_guessed_images(plan, recording, stamped=bool(first))
    placed: list[tuple[int, PlannedSeeds]] = []
    for entry in plan:
        if entry.after:
            placed.append((events.index_after(entry, stamps, recording), entry))
            continue
        index = entry.index if entry.index is not None else first.get(entry.stamp_ns or 0)
        if index is None:
            text = f'{entry.source}: no image of {_topic(recording)} has the stamp {seconds(entry.stamp_ns or 0)}'
            if entry.recorded and not (first and entry.stamp_ns):
                text = f'{entry.source}: no unstamped image of {_topic(recording)} was recorded before it'
            if not entry.recorded:
                raise SeedError(f'{text}; {_nearest_stamps(sorted(first), entry.stamp_ns or 0)}')
            missed.append(text)
        elif recording.length is not None and recording.exact and index >= recording.length:
            raise SeedError(
                f'{entry.source}: there is no image {index}: {recording.path} has {recording.length}, counted from 0'
            )
        else:
            placed.append((index, entry))
    for index, entry in events.in_effective_order(placed):
        if not (entry.after and index >= len(stamps)):  # no image shows its effect
            places.setdefault(index, []).append(entry)
    if plan and not places:
        raise naming(
            Setting.IMAGE_TOPIC,
            SeedError(
                f'none of the {len(plan)} recorded seeds belongs to an image of {_topic(recording)}; {missed[0]}; give '
                'seeds of your own, or name the image topic that the node tracked'
            ),
        )
    return places, missed


def _with_guessed_images(plan: Sequence[PlannedSeeds], recording: Recording, *, stamped: bool) -> list[PlannedSeeds]:
    """Return the plan with image indices for recorded seeds of unstamped images.

    stamped: whether any image has a stamp.
    """
    guessed = list(plan)
    unstamped = [row for row, entry in enumerate(guessed) if _needs_guess(entry, stamped=stamped)]
    if unstamped:
        images = sorted((frame.received_ns, frame.index) for frame in recording.frames() if frame.stamp_ns <= 0)
        for row in unstamped:
            before = bisect.bisect(images, guessed[row].received_ns or 0, key=lambda image: image[0])
            if before:
                guessed[row] = dataclasses.replace(guessed[row], index=images[before - 1][1], guessed=True)
    return guessed


def _needs_guess(entry: PlannedSeeds, *, stamped: bool) -> bool:
    return (
        entry.recorded
        and not entry.after
        and entry.index is None
        and entry.received_ns is not None
        and not (stamped and entry.stamp_ns)
    )


def describe_choices(places: Mapping[int, Sequence[PlannedSeeds]]) -> list[str]:
    """Describe changed masks, and the seeds whose image was chosen by recording time."""
    notes = [note for _, entries in sorted(places.items()) for entry in entries for note in entry.notes]
    return notes + [
        f'{entry.source}: its image has no stamp; used the newest image recorded before it, image {index}'
        for index, entries in sorted(places.items())
        for entry in entries
        if entry.guessed
    ]


def seeds_connection(recording: BagRecording, topic: str = '') -> Any:
    """Return rosbags' connection of the recorded events or, in older bags, seeds; None without any.

    topic: its name; optional if the bag has only one.

    Raises:
        BagError: several topics of seeds, no topic of this name, or another type.
    """
    kinds = (TRACKING_EVENT, ACCEPTED_SEEDS)
    connections = [c for c in recording.bag.connections if c.msgtype in kinds and (c.msgcount or c.topic == topic)]
    if not topic:  # events contain the seeds, too
        connections = [c for c in connections if c.msgtype == TRACKING_EVENT] or connections
    names = ', '.join(c.topic for c in connections) or 'none'
    if topic:
        connections = [c for c in connections if c.topic == topic]
        if not connections:
            raise BagError(f'{recording.path}: no topic {topic} of {" or ".join(kinds)}; topics of seeds: {names}')
    if len(connections) > 1:
        raise naming(
            Setting.SEEDS_TOPIC,
            BagError(
                f'{recording.path}: several topics have seeds: {names}; name the topic of the node that tracked '
                f'{recording.image_topic}, such as {connections[0].topic}'
            ),
        )
    return connections[0] if connections else None


def recorded_seeds(recording: BagRecording, topic: str = '') -> list[PlannedSeeds]:
    """Return the plan of a bag's events or AcceptedSeeds; as `seeds_connection`."""
    wanted = seeds_connection(recording, topic)
    if wanted is None:
        return []
    if not typestore.is_known_definition(wanted):
        raise naming(
            Setting.SEEDS,
            BagError(
                f'{recording.path}: {wanted.topic} was recorded by another version of xmem_ros, whose '
                f'{wanted.msgtype} has other fields; give seeds of your own'
            ),
        )
    plan: list[PlannedSeeds] = []
    numbers: list[tuple[int, int]] = []
    size = points = 0
    for number, (connection, received_ns, raw) in enumerate(recording.raw([wanted])):
        source = f'{recording.path}: {connection.topic}, message {number}'
        size += len(raw)
        try:
            if len(raw) > MAX_SEEDS_BYTES or size > MAX_ALL_SEEDS_BYTES:
                raise BagError(
                    f'{len(raw)} bytes; at most {MAX_SEEDS_BYTES} are read of one message, {MAX_ALL_SEEDS_BYTES} of all'
                )
            points += typestore.count_points(raw, wanted.msgtype)
            if points > MAX_POINTS:
                raise BagError(f'more than {MAX_POINTS} points')
            message = typestore.deserialize(raw, wanted.msgtype)
        except Exception as error:  # depends on the bytes
            text = f'{source} cannot be read ({error}); give seeds of your own'
            raise naming(Setting.SEEDS, BagError(text)) from error
        plan.append(_entry(message, source, received_ns))
        if wanted.msgtype == TRACKING_EVENT:
            numbers.append((int(message.session), int(message.sequence)))
    notes = events.describe_gaps(numbers, f'{recording.path}: {wanted.topic}')
    if len(plan) < wanted.msgcount:
        notes.append(f'{recording.path}: {len(plan)} of the {wanted.msgcount} messages on {wanted.topic} could be read')
    recording.notes += [note for note in notes if note not in recording.notes]
    return events.without_idle_start(plan)


def _entry(message: Any, source: str, received_ns: int) -> PlannedSeeds:
    """Convert an xmem_ros/TrackingEvent or AcceptedSeeds."""
    kind = getattr(message, 'kind', events.SEED)
    ids = tuple(int(value) for value in message.ids)
    entry = PlannedSeeds((), (), source=source, received_ns=received_ns, recorded=True)
    if kind == events.SEED:
        stamp = ns_of(message.header.stamp)
        return dataclasses.replace(entry, seeds=tuple(message.seeds), ids=ids, stamp_ns=stamp)
    entry = dataclasses.replace(entry, stamp_ns=ns_of(message.after), after=True)
    if kind == events.REMOVE:
        return dataclasses.replace(entry, removed=ids)
    loaded = LoadedFile(message.file, message.sha256, ids) if kind == events.LOAD else None
    return dataclasses.replace(entry, reset=True, loaded=loaded)


def seconds(stamp_ns: int) -> str:
    """Format a stamp as seconds with nine decimals."""
    return f'{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}'


def _topic(recording: Recording) -> str:
    return f'{recording.path} {recording.image_topic}'.rstrip()


def _nearest_stamps(stamps: list[int], wanted: int) -> str:
    """Describe the stamps around a missing one."""
    place = bisect.bisect(stamps, wanted)
    near = [seconds(stamp) for stamp in stamps[max(place - 1, 0) : place + 1]]
    return f'give the stamp of an image; the nearest are {" and ".join(near)}' if near else 'its images have no stamps'
