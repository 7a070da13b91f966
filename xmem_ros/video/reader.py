# SPDX-License-Identifier: MIT
"""Reading of video files by PyAV (FFmpeg). No ROS, no torch.

A frame that is lost, damaged, or predicted from a damaged one is named as such; it keeps its place
and its time, as do all others.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import deque
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from xmem_ros import atomic, pictures
from xmem_ros.errors import FrameError
from xmem_ros.video.boxes import check_counts, movie_seconds
from xmem_ros.video.damage import Judge
from xmem_ros.video.decoder import Decoder, import_av, orientation_of, pixels_of, turned
from xmem_ros.video.index import NO_TIME, FrameIndex, Header, Packets, index_of
from xmem_ros.video.transport import frames_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONVERT = 'convert it: ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4'
# FFmpeg also reads playlists and opens the files and URLs in them; these are only containers.
_CONTAINERS = 'mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,flv,ogg,asf,h264,hevc,mjpeg,m4v,mxf'
_BUFFER = 1 << 18  # bytes that are read at once
_MAX_FAILURES = 100  # of reading, without a packet between them
_MAX_DELAY = 17  # frames that are held to notice one out of order
_NO_EDITS = 'ignore_editlist'  # option of that format
_STREAMED = ('mpegts', 'mpeg')  # formats that cut a frame at the next one's header
_STRETCH = 4  # a difference between durations that no rounding or pause explains
_DELIMITER = b'\0\0\1\x09'  # begins a frame of H.264
_UNKNOWN = 'Unknown entry'  # of Matroska
_MOST_BEGIN = 1 << 18  # bytes before the first packet that are searched for it
_TABLED = 'mov,'  # begins the name of the format whose frames are all in a table


class VideoFile:
    """A video file; `len()` is the number of its frames, with lost ones.

    Opening reads the file once, without decoding it.

    Attributes:
        times_ns: time of each frame since the first one [ns], strictly increasing.
        rate: mean rate [frames/s]; 0: unknown.
        notes: on frames that are not read on purpose.
        damage: of the header, or ''; complete once `frames` has ended.

    Raises:
        FrameError: not a video, of an unknown codec, too large, or without a packet.
        ParameterError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._options = {'format_whitelist': _CONTAINERS, 'protocol_whitelist': 'none'}
        self._bytes = path.stat().st_size
        self._orientations: dict[float, tuple[bool, int, int] | None] = {}
        self._movie_s = 0.0  # duration in the header
        self._found: list[str] = []  # damage
        self._index = self._indexed()
        self.damage = '; '.join(self._found)
        self.times_ns = self._index.times_ns
        self.rate = self._index.rate
        self._missing = {loss.frame for loss in self._index.lost}

    def __len__(self) -> int:
        return len(self._index)

    @contextlib.contextmanager
    def _opened(self, end: int | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the open container and its video stream, with a closed decoder.

        end: number of bytes that are read; None: all.
        """
        av = import_av()
        try:
            file = atomic.open_regular(self.path)
        except OSError as error:
            raise FrameError(f'{self.path}: cannot be read ({error.strerror or error})') from error
        with file, contextlib.ExitStack() as stack:
            try:
                check_counts(file)
                self._movie_s = movie_seconds(file)
                container = stack.enter_context(
                    av.open(
                        _Unnamed(file, end),
                        container_options=self._options,
                        io_open=_refuse,
                        buffer_size=_BUFFER,
                        metadata_errors='backslashreplace',
                    )
                )
                stream = container.streams.best('video')
            except FrameError as error:
                raise FrameError(f'{self.path}: {error}') from error
            except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
                raise FrameError(f'{self.path}: not a video that can be read ({_reason(error)}); {CONVERT}') from error
            if stream is None:
                raise FrameError(f'{self.path}: no video stream in this file')
            if stream.codec_context is None:
                raise FrameError(f'{self.path}: FFmpeg has no decoder for this video; {CONVERT}')
            if container.format.name == 'mpegts':
                container.flags &= ~av.container.Flags.gen_pts.value  # made-up times of display
            yield container, stream

    def _indexed(self) -> FrameIndex:
        av = import_av()
        level = av.logging.get_level()
        av.logging.set_level(av.logging.WARNING)  # what the reader of a damaged container says, for its place only
        try:
            with av.logging.Capture() as log, self._opened() as (container, stream):
                odd, packets = bool(log), Packets()
                log.clear()
                self._read_packets(container, stream, packets, log)
                if container.format.name.startswith('matroska') and packets.pts[0] > 0:
                    packets.signs |= {0} if odd or self._begins_oddly(packets.position[0]) else set()
                dropped = self._dropped(container, stream, len(packets) + packets.hidden)
                index = index_of(packets, self._header(container, stream, len(packets), dropped))
                # cells have 188 bytes, on discs and from some receivers 192 and 204
                self._torn = container.format.name == 'mpegts' and all(self._bytes % cell for cell in (188, 192, 204))
                tabled = container.format.name.startswith(_TABLED) and stream.frames > 0
                alone = len(container.streams) == 1
        finally:
            av.logging.set_level(level)
        found: list[str] = []
        if index.contradictory:
            found.append('the times of display contradict those of decoding, so the frames have a constant rate')
            if packets.outside and _NO_EDITS not in self._options:
                self._options[_NO_EDITS] = '1'  # frames may lie outside it by their damaged times
                return self._indexed()
        if count := len(packets.outside) + dropped:
            self.notes = [f'{self.path}: {count} frames outside its edit list are not shown, and not read']
        span_s, movie_s = index.times_ns[-1] / 1e9 + (1 / index.rate if index.rate else 0), self._movie_s
        if tabled and movie_s and (span_s > _STRETCH * movie_s or (alone and _STRETCH * span_s < movie_s)):
            found.append(f'it says {movie_s:g} s, but its frames last {span_s:g} s, so their times may be wrong')
        if not packets.keyframe[0] and len(index.keyframes):
            found.append('it begins within a group of pictures, so frames before its first one may be missing')
        if self._torn:
            found.append('it was cut off, so frames after its last one may be missing')
        self._found = [f'{self.path}: it is damaged: {text}' for text in found]
        return index

    def _begins_oddly(self, end: int) -> bool:
        """Return whether a Matroska file has unknown elements before the first packet."""
        av = import_av()
        if not 0 < end <= _MOST_BEGIN:
            return False
        av.logging.set_level(av.logging.DEBUG)
        try:
            with av.logging.Capture() as log, contextlib.suppress(FrameError), self._opened(end):
                pass
        finally:
            av.logging.set_level(av.logging.WARNING)
        return any(_UNKNOWN in text for _, _, text in log)

    def _read_packets(self, container: Any, stream: Any, packets: Packets, log: list[Any]) -> None:
        """Add the packets of the stream; `log` receives what the reader of the container says."""
        codec = stream.codec_context
        try:
            pictures.check_pixels(codec.width, codec.height)
        except FrameError as error:
            raise FrameError(f'{self.path}: its frames are {error}') from error
        delimited = codec.name == 'h264' and container.format.name in _STREAMED
        for packet in _demuxed(container, stream, packets.signs):
            if log:
                packets.signs.add(len(packets))
                log.clear()
            if packet is None:
                continue
            if not _has_frame(packet, codec.name):
                packets.hidden += 1
                if packet.is_discard:
                    packets.outside.append((_time(packet.pts), _time(packet.dts)))
                continue
            if delimited and (count := bytes(packet).count(_DELIMITER)) > 1:
                packets.merged[len(packets)] = count - 1
            packets.pts.append(_time(packet.pts))
            packets.dts.append(_time(packet.dts))
            packets.position.append(-1 if packet.pos is None else packet.pos)
            packets.size.append(packet.size)
            packets.keyframe.append(packet.is_keyframe)
            if packet.is_corrupt:
                packets.signs.add(len(packets))
        if not len(packets):
            raise FrameError(f'{self.path}: no frame of this video can be read')

    def _dropped(self, container: Any, stream: Any, count: int) -> int:
        """Return the number of frames that FFmpeg leaves out: those outside the edit list."""
        if not container.format.name.startswith(_TABLED) or stream.frames <= count or _NO_EDITS in self._options:
            return 0
        listed = len(stream.index_entries)
        self._options[_NO_EDITS] = '1'
        try:
            with self._opened() as (_, whole):
                return max(min(len(whole.index_entries), stream.frames) - listed, 0)
        finally:
            del self._options[_NO_EDITS]

    def _header(self, container: Any, stream: Any, count: int, dropped: int) -> Header:
        form = container.format.name
        rate = stream.average_rate or stream.guessed_rate
        positions = {}
        if form == 'avi':
            # an entry is the offset of a chunk, and a packet's that of its content
            positions = {entry.pos + 8: entry.size for entry in stream.index_entries}
        listed = len(stream.index_entries) if form.startswith(_TABLED) else 0
        alone = len(container.streams) == 1 and form.startswith('matroska')
        if form == 'mpegts':
            with atomic.open_regular(self.path) as file:
                listed = frames_of(file, stream.id, count)
        return Header(
            tick=Fraction(stream.time_base or 0),
            rate=Fraction(rate) if rate and 0 < rate < 1000 else None,
            # a frame takes a byte at least
            frames=min(max(stream.frames - dropped, listed, 0), self._bytes),
            duration_s=max(container.duration or 0, 0) / 1e6 if alone else 0.0,
            positions=positions,
            complete=form.startswith(_TABLED) and stream.frames > 0,  # else in fragments
            streamed=form in _STREAMED,
            from_zero=form.startswith('matroska'),
        )

    def frames(self, *, deep: bool = False) -> Iterator[np.ndarray | FrameError]:
        """Yield each frame in the order of display, or an error in place of one that is lost.

        Arguments:
            deep: give frames of more than 8 bits as uint16: grey ones H×W, with the codec's own
                values, others H×W×3 RGB of 16 bits. Else, and for all others: H×W×3 uint8 RGB.

        Raises:
            FrameError: no frame at all can be read.
        """
        due = good = 0
        index = self._index
        for number, found in self._in_order():
            if number < due:
                continue
            for lost in range(due, number):
                yield self._lost(lost)
            due = number + 1
            given = found if isinstance(found, FrameError) else self._pixels(found, number, deep=deep)
            good += not isinstance(given, FrameError)
            yield given
        for lost in range(due, len(index)):
            yield self._lost(lost)
        if not good:
            raise FrameError(f'{self.path}: no frame of this video can be read; {CONVERT}')

    def _lost(self, number: int) -> FrameError:
        why = 'is missing in the file' if number in self._missing else 'cannot be decoded'
        return FrameError(f'{self.path}: frame {number} {why}')

    def _pixels(self, frame: Any, number: int, *, deep: bool) -> np.ndarray | FrameError:
        av = import_av()
        try:
            pictures.check_pixels(frame.width, frame.height)
            pixels = pixels_of(frame, deep=deep)
            if frame.rotation not in self._orientations:
                self._orientations[frame.rotation] = orientation_of(frame)
            orientation = self._orientations[frame.rotation]
        except (FrameError, av.FFmpegError, ValueError, OSError) as error:
            return FrameError(f'{self.path}: frame {number} cannot be decoded ({_reason(error)})')
        if orientation is None:
            text = f'{self.path}: its rotation is not by 90, 180 or 270°, and is not applied'
            self.damage = '; '.join([*self._found, text])
            return pixels
        return turned(pixels, orientation)

    def _in_order(self) -> Iterator[tuple[int, Any]]:
        """Yield the number and the decoded frame, or an error, without those out of order."""
        held: deque[tuple[int, Any]] = deque()
        due = 0
        for number, found in self._decoded():
            held.append((number, found))
            while held and (held[0][0] == due or len(held) > _MAX_DELAY):
                head = held.popleft()
                if all(head[0] < other for other, _ in held):
                    yield head
                    due = max(due, head[0] + 1)
        while held:
            head = held.popleft()
            if all(head[0] < other for other, _ in held):
                yield head

    def _decoded(self) -> Iterator[tuple[int, Any]]:
        """Yield decoded frames as the decoder gives them; errors for those that are not whole."""
        index = self._index
        with self._opened() as (container, stream):
            name, decoder = stream.codec_context.name, Decoder(stream.codec_context)
            judge = Judge(index, concealing=decoder.concealing)
            for judged in self._judged(_demuxed(container, stream), name, decoder, judge):
                number, frame, whole = judged
                if whole:
                    yield number, frame
                else:
                    yield number, FrameError(f'{self.path}: frame {number} is damaged or needs a damaged one')

    def _judged(
        self, packets: Iterator[Any], name: str, decoder: Decoder, judge: Judge
    ) -> Iterator[tuple[int, Any, bool]]:
        index = self._index
        ordinal = shown = 0
        refused: list[int] = []
        for packet in packets:
            if packet is not None and _has_frame(packet, name):
                if ordinal >= len(index.frame_of):
                    break  # the file grew meanwhile
                corrupt = packet.is_corrupt
                packet.pts, packet.dts = ordinal, None
                judge.sent(ordinal)
                frames, failed = decoder.decode(packet)
                if corrupt or failed:
                    judge.spoil(ordinal)
                if failed and not frames:
                    refused.append(ordinal)
                    judge.refused(ordinal)
                ordinal += 1
            else:
                if packet is not None:
                    packet.pts = packet.dts = None
                frames, _ = decoder.decode(packet)
            for frame in frames:
                source = frame.pts
                if source is None or not 0 <= source < ordinal or index.frame_of[source] < 0:
                    continue
                if frame.is_corrupt:
                    judge.spoil(source)
                number = int(index.frame_of[source]) if index.ordered else shown + bisect_left(refused, source)
                shown += 1
                judge.decoded(source, number, frame)
            yield from judge.judged()
        yield from judge.judged(final=True)


class _Unnamed:
    """A file without its name, from which FFmpeg could guess a format or a pattern of names."""

    def __init__(self, file: IO[bytes], end: int | None = None) -> None:
        self.seek, self.tell = file.seek, file.tell
        self.read = file.read if end is None else lambda size: file.read(max(min(size, end - file.tell()), 0))


def _refuse(url: str, *_: object) -> Any:
    raise PermissionError(f'a video that names another file or address: {url!r}')


def _demuxed(container: Any, stream: Any, signs: set[int] | None = None) -> Iterator[Any]:
    """Yield the packets of a stream, beyond errors, and None at the end.

    signs: receives the numbers of packets read before each error.
    """
    av = import_av()
    failures = count = 0
    tabled = container.format.name.startswith(_TABLED)
    while True:
        ended = False
        try:
            for packet in container.demux(stream):
                if packet.size == 0 and packet.dts is None and packet.pts is None:
                    ended = True
                    break
                failures = 0
                count += 1
                yield packet
        except (av.FFmpegError, OSError, ValueError):
            if signs is not None:
                signs.add(count)
        failures += 1
        # a frame in a table that lies beyond the end of the file ends the reading, too
        if failures > _MAX_FAILURES or (ended and not (tabled and count < len(stream.index_entries))):
            yield None
            return


def _has_frame(packet: Any, codec: str) -> bool:
    """Return whether a packet has a frame that is shown."""
    if packet.is_discard:  # outside the edit list
        return False
    # only other frames are predicted from it
    return not (codec in ('vp8', 'libvpx') and packet.size and not memoryview(packet)[0] & 0x10)


def _time(ticks: int | None) -> int:
    return NO_TIME if ticks is None else ticks


def _reason(error: BaseException) -> str:
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__
