# SPDX-License-Identifier: MIT
"""Order, times and losses of a video's frames, from its packets alone. No FFmpeg.

A packet holds one coded frame. Packets come in decoding order and name their frames' times, which
give the order of display. Damage can take packets away, or change a time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

NO_TIME = -(1 << 63)
MAX_EXTRA = 100_000  # frames that only a header has, which are named as lost one by one
_MAX_TICKS = 1 << 60  # of a time, so that differences stay within 64 bits
_MAX_NS = 10**17  # three years: longer videos have absurd times
_MAX_UNTIMED = 0.2  # of the packets; with more, the times are not used
_REORDER = 17  # more packets than a frame's places in decoding and display order can differ by
_TOLERANCE = 0.1  # of the frame period, by which a constant rate's times may vary
_REGULAR = 0.5  # of the intervals, at a constant rate of which frames are lost


@dataclass
class Packets:
    """Packets of a video stream, in the order of the file.

    Attributes:
        pts: times of display [ticks]; `NO_TIME` if unknown.
        dts: times of decoding [ticks]; `NO_TIME` if unknown.
        position: offsets in the file [bytes], −1 if unknown.
        size: sizes [bytes].
        keyframe: 1 for frames that need no other frame.
        signs: places in the order before which the container is damaged.
        merged: packets that hold several frames → how many too many.
        hidden: number of other packets, whose frames are not shown.
        outside: times of display and of decoding [ticks] of those that lie outside the edit list.
    """

    pts: array[int] = field(default_factory=lambda: array('q'))
    dts: array[int] = field(default_factory=lambda: array('q'))
    position: array[int] = field(default_factory=lambda: array('q'))
    size: array[int] = field(default_factory=lambda: array('q'))
    keyframe: bytearray = field(default_factory=bytearray)
    signs: set[int] = field(default_factory=set)
    merged: dict[int, int] = field(default_factory=dict)
    hidden: int = 0
    outside: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pts)


@dataclass(frozen=True)
class Header:
    """What a container says of its video, apart from the packets.

    Attributes:
        tick: time base [s].
        rate: mean or nominal frames/s; None: unknown.
        frames: number of frames; 0: unknown.
        duration_s: of the video; 0: unknown.
        positions: offset [bytes] → size [bytes] of all packets, if the container lists them; empty
            ones are no frames, but take a frame's time.
        complete: whether every frame is in a table, so that a pause in the times is no loss.
        streamed: whether a lost packet's data can be appended to the one before it.
        from_zero: whether the times of whole files begin at 0.
    """

    tick: Fraction
    rate: Fraction | None
    frames: int = 0
    duration_s: float = 0.0
    positions: dict[int, int] = field(default_factory=dict)
    complete: bool = False
    streamed: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class Loss:
    """A frame without a packet.

    Attributes:
        frame: its number.
        after: the last packet that surely comes before it in the order of the file.
        first: the first frame in the order of display that may be predicted from it.
    """

    frame: int
    after: int
    first: int


@dataclass(frozen=True)
class FrameIndex:
    """Frames of a video in the order of display; `len()` counts lost ones, too.

    Attributes:
        frame_of: packet → frame; −1 for a packet whose time is damaged, where only that tells.
        ordered: whether the packets' times give the order of display; else it is that of decoding.
        times_ns: frame → time since the first one [ns], strictly increasing.
        keyframes: frames that need no other frame, sorted.
        lost: frames without a packet, in order.
        suspects: packets that may hold data of a lost one, too.
        rate: mean rate [frames/s]; 0: unknown.
        contradictory: whether the times of display in the header contradict those of decoding, and
            are replaced by those of a constant rate.
    """

    frame_of: np.ndarray
    ordered: bool
    times_ns: np.ndarray
    keyframes: np.ndarray
    lost: list[Loss]
    suspects: list[int]
    rate: float
    contradictory: bool = False

    def __len__(self) -> int:
        return len(self.times_ns)


def index_of(packets: Packets, header: Header) -> FrameIndex:
    """Derive the index of at least one packet."""
    count = len(packets)
    contradictory = header.complete and _contradict(packets)
    given, kept = (None, np.arange(count)) if contradictory else _times(packets, exact=header.complete)
    period = _period(given, header)
    order = kept if given is None else kept[np.argsort(given[kept], kind='stable')]
    ticks = kept * period if given is None else given[order]
    pauses = packets.hidden
    reordered = bool((np.diff(order) < 0).any())
    if header.positions and len(kept) == count and not reordered:
        gaps, ticks, pauses = _listed_gaps(packets, header, ticks, period)
    elif header.positions or given is None or (header.complete and count + packets.hidden >= header.frames):
        gaps = np.zeros(len(kept), np.int64)
    else:
        untimed = np.ones(count, bool)
        untimed[kept] = False
        gaps = _time_gaps(packets.signs.union(np.flatnonzero(untimed).tolist()), ticks, order, period)
    if 0 in packets.signs and header.from_zero and given is not None and ticks[0] > 0.6 * period:
        gaps[0] = min(round(float(ticks[0]) / period), MAX_EXTRA)
    elif header.streamed and any(packets.keyframe) and not packets.keyframe[0]:
        gaps[0] = max(header.frames - count - int(gaps.sum()), 0)
    if gaps.sum() > MAX_EXTRA:  # absurd times or headers
        gaps[:] = 0
    # packets without a place are lost, too: those within are gaps, those at an end have to be added
    first, last = int(kept[0]), count - 1 - int(kept[-1])
    frames = np.arange(len(kept)) + np.cumsum(gaps) + first  # of the packets in order of display
    known = int(frames[-1]) + 1 + max(last - int(gaps[-_REORDER:].sum()), 0)
    extra = max(_extra(known + pauses, header, ticks, period), sum(packets.merged.values()) - int(gaps.sum()))
    times_ns = _nanoseconds(_interpolated(ticks - ticks[0], frames, known + extra, period), header, period)
    frame_of = np.full(count, -1)
    frame_of[order] = frames
    frame_of[:first] = np.arange(first)
    lost = [
        Loss(frame, *_dependents(order, frames, place, reordered=reordered))
        for place in np.flatnonzero(gaps).tolist()
        for frame in range(int(frames[place] - gaps[place]), int(frames[place]))
    ]
    lost += [Loss(frame, count - 1, frame) for frame in range(int(frames[-1]) + 1, known + extra)]
    suspects = [*packets.merged, *(_before_gaps(packets, period) if header.streamed and gaps.any() else [])]
    keyframes = frame_of[np.frombuffer(bytes(packets.keyframe), np.uint8) > 0]
    keyframes = np.sort(keyframes[keyframes >= 0])
    span = int(times_ns[-1])
    rate = (len(times_ns) - 1) * 1e9 / span if span else float(header.rate or 0)
    return FrameIndex(frame_of, given is not None, times_ns, keyframes, lost, suspects, rate, contradictory)


def _contradict(packets: Packets) -> bool:
    """Return whether times of display are irregular, although those of decoding are regular.

    Both come from one table of durations, so that the table of differences is damaged.
    """
    outside = np.array(packets.outside, np.int64).reshape(-1, 2)
    pts = np.concatenate([np.frombuffer(packets.pts, np.int64), outside[:, 0]])
    dts = np.sort(np.concatenate([np.frombuffer(packets.dts, np.int64), outside[:, 1]]))
    if len(pts) < 3 or max(np.abs(pts).max(), np.abs(dts).max()) >= _MAX_TICKS:
        return False
    return bool(np.ptp(np.diff(dts)) <= 1 and np.ptp(np.diff(np.sort(pts))) > 2)


def _times(packets: Packets, *, exact: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the times of display [ticks], None if unusable, and the packets that have a place.

    A damaged time is interpolated, if the order of display is that of decoding. `exact` times come
    from a table and are not damaged one by one.
    """
    pts, dts = (np.frombuffer(given, np.int64) for given in (packets.pts, packets.dts))
    everything = np.arange(len(pts))
    usable = (pts > -_MAX_TICKS) & (pts < _MAX_TICKS)
    if exact and usable.all():
        return pts.copy(), everything
    both = usable & (dts > -_MAX_TICKS) & (dts < _MAX_TICKS)
    reordered = both.sum() < len(pts) / 2 or (pts[both] != dts[both]).mean() > _MAX_UNTIMED
    places = np.flatnonzero(usable)
    if reordered:
        usable &= _is_plausible(pts, places)
        decoded = np.flatnonzero(both)
        late = np.ones(len(decoded), bool)
        late[_increasing(dts[decoded].tolist())] = False
        usable[decoded[late]] = False
    else:
        usable[:] = False
        usable[places[_increasing(pts[places].tolist())]] = True
    if usable.mean() < 1 - _MAX_UNTIMED:
        return None, everything
    if usable.all() or reordered:
        return pts.copy(), np.flatnonzero(usable)
    places = np.flatnonzero(usable)
    first = int(pts[places[0]])
    period = _median_step(pts[places])
    filled = _interpolated(pts[places] - first, places, len(pts), period)
    for place in np.flatnonzero(~usable[1:]) + 1:  # at the usual distance, so that a gap comes after them
        filled[place] = min(filled[place], filled[place - 1] + period)
    return first + np.rint(filled).astype(np.int64), everything


def _is_plausible(pts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return which times lie between those of packets too far away to be displayed out of order."""
    found = np.ones(len(pts), bool)
    given = pts[places]
    near = np.arange(_REORDER, _REORDER + 3)  # three of them, since one may be damaged itself
    count = len(given) - int(near[-1])
    if count > 0:
        begin = np.arange(count)
        before = np.median([given[begin + near[-1] - step] for step in near], axis=0)
        after = np.median([given[begin + step] for step in near], axis=0)
        found[places[begin + near[-1]]] &= given[begin + near[-1]] > before
        found[places[begin]] &= given[begin] < after
    return found


def _increasing(values: list[int]) -> list[int]:
    """Return the places of a longest strictly increasing subsequence."""
    tails: list[int] = []  # smallest last value of a subsequence of each length
    places: list[int] = []
    previous = [-1] * len(values)
    for place, value in enumerate(values):
        length = bisect_right(tails, value - 1)
        if length == len(tails):
            tails.append(value)
            places.append(place)
        elif value < tails[length]:  # of two equal times the first one is true
            tails[length], places[length] = value, place
        previous[place] = places[length - 1] if length else -1
    found = []
    place = places[-1] if places else -1
    while place >= 0:
        found.append(place)
        place = previous[place]
    return found[::-1]


def _median_step(sorted_ticks: np.ndarray) -> float:
    steps = np.diff(sorted_ticks)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 1.0


def _period(ticks: np.ndarray | None, header: Header) -> float:
    """Return the usual time between frames [ticks], by the header's rate if the times agree."""
    nominal = max(float(1 / header.rate / header.tick), 1e-6) if header.rate and header.tick else None
    if ticks is None or len(ticks) < 2:
        return nominal or 1.0
    found = _median_step(np.sort(ticks))
    return nominal if nominal and abs(nominal - found) <= max(_TOLERANCE * found, 1.5) else found


def _listed_gaps(
    packets: Packets, header: Header, ticks: np.ndarray, period: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the number of lost packets before each, times [ticks] and the number of empty packets.

    By the container's list; where it contradicts the packets, by the bytes between them.
    """
    found = np.frombuffer(packets.position, np.int64)
    if (np.diff(found) <= 0).any():
        return np.zeros(len(found), np.int64), ticks, 0
    listed = np.array(sorted(header.positions), np.int64)
    sizes = np.array([header.positions[place] for place in listed.tolist()])
    empty, missing = (places[~np.isin(places, found)] for places in (listed[sizes == 0], listed[sizes > 0]))
    total = len(found) + len(empty) + len(missing)
    if total == header.frames or not header.frames:
        before = np.searchsorted(missing, found)
    else:
        before = np.cumsum(_spare_bytes(packets, header.frames - len(found)))
        empty = empty[:0]
    ranks = np.arange(len(found)) + before + np.searchsorted(empty, found)
    return np.diff(before, prepend=0), ranks * period, len(empty)


def _spare_bytes(packets: Packets, lost: int) -> np.ndarray:
    """Distribute lost packets over the places where bytes between two packets are left over."""
    gaps = np.zeros(len(packets), np.int64)
    ends = np.frombuffer(packets.position, np.int64) + np.frombuffer(packets.size, np.int64)
    spare = np.frombuffer(packets.position, np.int64)[1:] - ends[:-1]
    if lost <= 0 or not len(spare):
        return gaps
    spare = spare - np.median(spare)
    spare[spare < 16] = 0  # two headers of chunks
    places = np.argsort(-spare, kind='stable')[: min(lost, np.count_nonzero(spare))]
    if len(places):
        shares = np.maximum(np.floor(lost * spare[places] / spare[places].sum()).astype(np.int64), 1)
        shares[0] += max(lost - shares.sum(), 0)
        gaps[places + 1] = shares
    return gaps


def _time_gaps(signs: set[int], ticks: np.ndarray, order: np.ndarray, period: float) -> np.ndarray:
    """Return for each packet, in order of display, the number of lost ones before it.

    A pause is a loss at a constant rate, or where the container is damaged.
    """
    gaps = np.zeros(len(ticks), np.int64)
    steps = np.diff(ticks)
    missing = np.rint(steps / period).astype(np.int64) - 1
    off = np.abs(steps - (missing + 1) * period)
    constant = len(steps) and (off <= max(_TOLERANCE * period, 1.5)).all() and (missing == 0).mean() >= _REGULAR
    for place in np.flatnonzero(missing > 0).tolist():
        low, high = sorted(order[place : place + 2].tolist())
        if constant or any(ordinal in signs for ordinal in range(low, high + 2)):
            gaps[place + 1] = min(int(missing[place]), MAX_EXTRA)
    return gaps


def _dependents(order: np.ndarray, frames: np.ndarray, place: int, *, reordered: bool) -> tuple[int, int]:
    """Return for a loss before `place` the last packet before it, and the first dependent frame.

    B-frames are predicted from a later frame, too. Without it they cannot be told from others, so
    that all back to one that others were predicted from count.
    """
    if not reordered:
        return int(order[place]) - 1, int(frames[place - 1]) + 1 if place else 0
    low = place
    while low and place - low < _REORDER and not (order[max(low - 1 - _REORDER, 0) : low - 1] > order[low - 1]).any():
        low -= 1
    return int(order[low : place + 1].min()) - 1, int(frames[low])


def _before_gaps(packets: Packets, period: float) -> list[int]:
    """Return the packets before a gap in the times of decoding."""
    steps = np.diff(np.clip(np.frombuffer(packets.dts, np.int64), -_MAX_TICKS, _MAX_TICKS))
    return [int(place) for place in np.flatnonzero(steps > round(1.5 * period))]


def _extra(known: int, header: Header, ticks: np.ndarray, period: float) -> int:
    """Return the number of frames at the end that only the header has."""
    extra = header.frames - known
    if not header.frames and header.duration_s and header.tick:
        left = header.duration_s / float(header.tick) - float(ticks[-1]) - period
        extra = round(left / period) if left > 0.6 * period else 0
    return min(max(extra, 0), MAX_EXTRA)


def _interpolated(ticks: np.ndarray, places: np.ndarray, count: int, period: float) -> np.ndarray:
    """Return ticks of `count` places from those of some."""
    found = np.interp(np.arange(count), places, ticks)
    head, tail = np.arange(places[0]), np.arange(places[-1] + 1, count)
    found[head] = ticks[0] - (places[0] - head) * period
    found[tail] = ticks[-1] + (tail - places[-1]) * period
    return found


def _nanoseconds(ticks: np.ndarray, header: Header, period: float) -> np.ndarray:
    """Return times since the first frame [ns]; for absurd ones the index over the rate."""
    since = ticks - ticks[0]  # the first frame may be a lost one
    unit = 1e9 * float(header.tick)
    if unit <= 0 or since[-1] * unit >= _MAX_NS or (len(ticks) > 1 and period * unit < 1):
        rate = header.rate if header.rate and 0 < header.rate < 1000 else Fraction(30)
        return np.array([round(index * 10**9 / rate) for index in range(len(ticks))], np.int64)
    # exact: a double holds ticks up to 2^53, and Python's integers the product
    numerator, denominator = header.tick.numerator * 10**9, header.tick.denominator
    whole = np.rint(since).astype(np.int64) if np.allclose(since, np.rint(since)) else None
    if whole is not None and int(whole[-1]) * numerator < 1 << 62:
        times = (whole * numerator + denominator // 2) // denominator
    else:
        times = np.rint(since * unit).astype(np.int64)
    places = np.arange(len(times))
    return np.maximum.accumulate(times - places) + places
