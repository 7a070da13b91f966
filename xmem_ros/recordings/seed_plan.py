# SPDX-License-Identifier: MIT
"""Which seeds are applied on which image of a recording: a plan, whatever the seeds come from. No rclpy."""

from __future__ import annotations

import bisect
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmem_ros.conversions.images import stamp_ns as ns_of
from xmem_ros.errors import BagError, SeedError
from xmem_ros.recordings import typestore
from xmem_ros.recordings.limits import MOST_POINTS, MOST_SEEDS, MOST_SEEDS_IN_ALL
from xmem_ros.recordings.typestore import ACCEPTED_SEEDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xmem_ros.recordings.recording import BagRecording, Recording


@dataclass(frozen=True)
class PlannedSeeds:
    """Seeds of one image: of a file, the command line or a recorded message."""

    seeds: tuple[Any, ...]  # xmem_ros/Seed messages; one with an id corrects the object that has it in `ids`
    ids: tuple[int, ...]  # of the objects that come of them, in order: what the plan and all results call them
    index: int | None = None  # of the image; None: `stamp_ns` says which
    stamp_ns: int | None = None
    removed: tuple[int, ...] = ()  # objects that are forgotten before
    values: tuple[int, ...] = ()  # pixel values that the objects are to have in mask files, as far as they are free
    source: str = 'seeds'  # where they come from, for what is said of them
    received_ns: int | None = None  # when they were recorded, where images have no stamps to know them by
    guessed: bool = False  # whether the image is the newest that was recorded before them
    recorded: bool = False  # accepted by a node once: where they cannot be used now, that is said and nothing ends


def new_objects(plan: Sequence[PlannedSeeds]) -> int:
    """How many objects a plan begins."""
    return len({object_id for entry in plan for object_id in entry.ids})


def resolve(plan: Sequence[PlannedSeeds], recording: Recording) -> tuple[dict[int, list[PlannedSeeds]], list[str]]:
    """Find the images of a plan; reads the whole recording where stamps are asked for.

    Recorded seeds of images without stamps are for the newest one that was recorded before them.

    Returns:
        index → its entries in order, and, in words, the recorded ones that have no image.

    Raises:
        SeedError: there is no such image; or, of recorded seeds, none has.
    """
    places: dict[int, list[PlannedSeeds]] = {}
    missed: list[str] = []
    stamps = recording.stamps() if any(entry.index is None for entry in plan) else []
    first: dict[int, int] = {}
    for number, stamp in enumerate(stamps):
        if stamp > 0:
            first.setdefault(stamp, number)
    plan = _guessed(plan, recording, stamped=bool(first))
    for entry in plan:
        index = entry.index if entry.index is not None else first.get(entry.stamp_ns or 0)
        if index is None:
            text = f'{entry.source}: no image of {_topic(recording)} has the stamp {seconds(entry.stamp_ns or 0)}'
            if entry.recorded and not (first and entry.stamp_ns):
                text = f'{entry.source}: no image without a stamp of {_topic(recording)} was recorded before it'
            if not entry.recorded:
                raise SeedError(f'{text}; {_beside(sorted(first), entry.stamp_ns or 0)}')
            missed.append(text)
        elif recording.length is not None and recording.exact and index >= recording.length:
            raise SeedError(
                f'{entry.source}: there is no image {index}: {recording.path} has {recording.length}, counted from 0'
            )
        else:
            places.setdefault(index, []).append(entry)
    if plan and not places:
        raise SeedError(
            f'none of the {len(plan)} recorded seeds belongs to an image of {_topic(recording)}: name the topic of the '
            f'images that the node tracked (--image-topic), or give seeds of your own; {missed[0]}'
        )
    return places, missed


def _guessed(plan: Sequence[PlannedSeeds], recording: Recording, *, stamped: bool) -> list[PlannedSeeds]:
    """A plan in which recorded seeds of images without stamps have an index, if there is such an image before them.

    stamped: whether any image has a stamp.
    """
    found = list(plan)
    wanted = [place for place, entry in enumerate(found) if _without_stamp(entry, stamped=stamped)]
    if wanted:
        images = sorted((frame.received_ns, frame.index) for frame in recording.frames() if frame.stamp_ns <= 0)
        for place in wanted:
            before = bisect.bisect(images, found[place].received_ns or 0, key=lambda image: image[0])
            if before:
                found[place] = dataclasses.replace(found[place], index=images[before - 1][1], guessed=True)
    return found


def _without_stamp(entry: PlannedSeeds, *, stamped: bool) -> bool:
    return entry.recorded and entry.index is None and entry.received_ns is not None and not (stamped and entry.stamp_ns)


def guesses(places: Mapping[int, Sequence[PlannedSeeds]]) -> list[str]:
    """In words, which seeds may belong to another image than they are applied on."""
    return [
        f'{entry.source}: its image has no stamp; taken for the newest that was recorded before it, image {index}'
        for index, entries in sorted(places.items())
        for entry in entries
        if entry.guessed
    ]


def seeds_connection(recording: BagRecording, topic: str = '') -> Any:
    """rosbags' connection of the recorded seeds; None where there are none.

    topic: may be left out where there is one.

    Raises:
        BagError: several topics of seeds, or none of the name, or one of another type.
    """
    connections = [
        c for c in recording.bag.connections if c.msgtype == ACCEPTED_SEEDS and (c.msgcount or c.topic == topic)
    ]
    names = ', '.join(c.topic for c in connections) or 'none'
    if topic:
        connections = [c for c in connections if c.topic == topic]
        if not connections:
            raise BagError(f'{recording.path}: no topic {topic} of {ACCEPTED_SEEDS}; those that there are: {names}')
    if len(connections) > 1:
        raise BagError(
            f'{recording.path}: several topics have seeds: {names}; name that of the node which tracked '
            f'{recording.image_topic}: --seeds-topic {connections[0].topic}'
        )
    return connections[0] if connections else None


def recorded_seeds(recording: BagRecording, topic: str = '') -> list[PlannedSeeds]:
    """The xmem_ros/AcceptedSeeds messages of a bag; empty where it has none. Arguments and errors as above."""
    wanted = seeds_connection(recording, topic)
    if wanted is None:
        return []
    if not typestore.is_known_definition(wanted):
        raise BagError(
            f'{recording.path}: {wanted.topic} was recorded by a version in which {ACCEPTED_SEEDS} has other fields; '
            'give seeds of your own with --seed'
        )
    plan = []
    size = points = 0
    for number, (connection, received_ns, raw) in enumerate(recording.raw([wanted])):
        source = f'{recording.path}: {connection.topic}, message {number}'
        size += len(raw)
        try:
            if len(raw) > MOST_SEEDS or size > MOST_SEEDS_IN_ALL:
                raise BagError(f'{len(raw)} bytes; at most {MOST_SEEDS} are read of one, {MOST_SEEDS_IN_ALL} of all')
            message = typestore.deserialize(raw, ACCEPTED_SEEDS)
            points += sum(len(seed.points) for seed in message.seeds)
            if points > MOST_POINTS:
                raise BagError(f'more than {MOST_POINTS} points')
        except Exception as error:  # of whatever the bytes say
            raise BagError(f'{source} cannot be read ({error}); give seeds of your own with --seed') from error
        plan.append(
            PlannedSeeds(
                tuple(message.seeds),
                tuple(int(value) for value in message.ids),
                stamp_ns=ns_of(message.header.stamp),
                source=source,
                received_ns=received_ns,
                recorded=True,
            )
        )
    return plan


def seconds(stamp_ns: int) -> str:
    """A stamp as people read and write it: seconds with nine decimals."""
    return f'{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}'


def _topic(recording: Recording) -> str:
    return f'{recording.path} {recording.image_topic}'.rstrip()


def _beside(stamps: list[int], wanted: int) -> str:
    """The stamps around one that is not there, in words."""
    place = bisect.bisect(stamps, wanted)
    near = [seconds(stamp) for stamp in stamps[max(place - 1, 0) : place + 1]]
    return f'give that of an image: the nearest are {" and ".join(near)}' if near else 'its images have no stamps'
