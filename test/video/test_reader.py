# SPDX-License-Identifier: MIT
"""Videos that are read: damaged ones, ones of a variable rate, deep ones, and hostile ones."""

import gc
import os
import random
import struct
from array import array
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import COUNT, KINDS, RATE, SIZE, disc, packets, shown, write_video

from xmem_ros import pictures
from xmem_ros.errors import FrameError
from xmem_ros.recordings.recording import CLIP_START_NS, open_recording
from xmem_ros.video.clip import Clip
from xmem_ros.video.index import Header, Packets, index_of

PLACES = 20
TIMES = [round(index * 1e9 / RATE) for index in range(COUNT)]
VARIABLE = [Fraction(index * index, 100) for index in range(12)]


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    for name, (codec, pixels, options) in KINDS.items():
        write_video(folder / name, codec, pixels, options)
    return folder


def read(path):
    """Return a clip's frames or errors, and their times [ns]."""
    clip = Clip(path)
    frames = [frame for _, frame in clip.frames()]
    assert len(frames) == len(clip)
    return frames, [clip.time_ns(index) for index in range(len(clip))]


def near(times, expected):
    """Matroska's times are whole milliseconds."""
    return all(abs(a - b) <= 1_000_000 for a, b in zip(times, expected, strict=True))


@pytest.mark.parametrize('name', KINDS)
def test_every_frame_of_a_whole_video_is_read_with_its_time(videos, name):
    frames, times = read(videos / name)
    assert [shown(frame) for frame in frames] == list(range(COUNT))
    assert near(times, TIMES)


@pytest.mark.parametrize('name', KINDS)
def test_a_lost_frame_is_named_and_no_other_takes_its_place(videos, name, tmp_path):
    """One frame's data is overwritten with zeros: every frame given still shows its own index."""
    whole, places = (videos / name).read_bytes(), packets(videos / name)
    for place, size, index, _ in random.Random(1).sample(places[1:-2], PLACES):
        data = bytearray(whole)
        data[place : place + size] = bytes(size)
        (tmp_path / name).write_bytes(data)
        frames, times = read(tmp_path / name)
        assert len(frames) == COUNT
        assert isinstance(frames[index], FrameError), index
        given = [number for number, frame in enumerate(frames) if not isinstance(frame, FrameError)]
        assert [shown(frames[number]) for number in given] == given
        assert near(times, TIMES)
        later = max((i for _, _, i, key in places if key and i <= index), default=0) + 8
        assert set(range(later, COUNT)) <= set(given), 'the next keyframe ends it'


@pytest.mark.parametrize('name', KINDS)
def test_damage_in_random_places_loses_no_frame_in_silence(videos, name, tmp_path):
    """Frames of other groups of pictures than the damaged one are the same, at their own times."""
    whole, places = (videos / name).read_bytes(), packets(videos / name)
    expected, _ = read(videos / name)
    keys = sorted(index for _, _, index, key in places if key)
    ends = [place for place, *_ in places[1:]] + [len(whole)]  # a packet may be in several pieces
    first, last = places[0][0], max(place for place, _, _, key in places if key)
    chance = random.Random(2)
    for _ in range(PLACES):
        begin = chance.randrange(first, last)
        data = bytearray(whole)
        data[begin : begin + 12] = chance.randbytes(12)
        (tmp_path / name).write_bytes(data)
        frames, times = read(tmp_path / name)
        assert len(frames) == COUNT, begin
        hit = {item[2] for item, after in zip(places, ends, strict=True) if item[0] - 200 < begin < after}
        hit |= {max(key for key in keys if key <= index) for index in hit}
        spoiled = {i for i in range(COUNT) if max(key for key in keys if key <= i) in hit}
        for index, frame in enumerate(frames):
            if index not in spoiled and not isinstance(frame, FrameError):
                np.testing.assert_array_equal(frame, expected[index], f'{begin}: {index}')
                assert near(times[index : index + 1], TIMES[index : index + 1])


@pytest.mark.parametrize('name', KINDS)
def test_a_video_damaged_in_twenty_places_says_how_much_of_it_is_left(videos, name, tmp_path):
    whole, places = (videos / name).read_bytes(), packets(videos / name)
    intra = all(key for _, _, _, key in places)
    data = bytearray(whole)
    chance = random.Random(3)
    for _ in range(PLACES):
        place, size, _, _ = chance.choice([item for item in places[1:-2] if intra or not item[3]])
        begin = place + chance.randrange(size)
        data[begin : begin + 12] = bytes(12)
    (tmp_path / name).write_bytes(data)
    with open_recording(tmp_path / name) as recording:
        found = list(recording.frames())
        assert len(found) + len(recording.faults) == recording.length == COUNT
        assert recording.damage == f'{tmp_path / name}: {len(found)} of {COUNT} frames could be read'
        assert all(frame.stamp_ns == recording.stamp_of(frame.index) for frame in found)


def test_a_video_that_was_cut_off_says_how_many_frames_are_lost(videos, tmp_path):
    """Of the kinds here, an MPEG transport stream has no header that tells."""
    for name in ('mpeg4.mp4', 'mjpeg.avi', 'vp9.webm', 'av1.mkv'):
        end = packets(videos / name)[12][0]
        (tmp_path / name).write_bytes((videos / name).read_bytes()[:end])
        frames, times = read(tmp_path / name)
        assert len(frames) == COUNT
        assert all(isinstance(frame, FrameError) for frame in frames[12:])
        assert [shown(frame) for frame in frames[:11]] == list(range(11))
        assert near(times, TIMES)


# --- times


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts'])
def test_frames_of_a_variable_rate_have_their_own_times(tmp_path, name):
    path = write_video(tmp_path / name, times=VARIABLE, count=len(VARIABLE))
    with open_recording(path) as recording:
        found = list(recording.frames())
        assert recording.damage == ''
        assert recording.rate == pytest.approx(11 / float(VARIABLE[-1]), rel=1e-3)
        assert recording.stamps() == [frame.stamp_ns for frame in found]
    assert [frame.stamp_ns - CLIP_START_NS for frame in found] == pytest.approx(
        [float(time * 10**9) for time in VARIABLE], abs=12_000
    ), 'ticks of 1/90000 s'
    assert [shown(frame.message.data.reshape(*SIZE, 3)) for frame in found] == list(range(12))


def test_a_video_without_times_has_those_of_its_rate(tmp_path):
    path = write_video(tmp_path / 'a.h264', options={'x264-params': 'bframes=0'})
    frames, times = read(path)
    assert [shown(frame) for frame in frames] == list(range(COUNT))
    assert np.diff(times).min() > 0
    assert np.ptp(np.diff(times)) <= 1, 'one nanosecond of rounding'


@pytest.mark.parametrize('scale', [1, 2**32 - 1])
def test_absurd_times_of_a_header_do_not_become_stamps(videos, tmp_path, scale):
    """The time scale of an MP4 is a number of ticks per second."""
    data = bytearray((videos / 'mpeg4.mp4').read_bytes().replace(b'edts', b'skip'))
    place = data.index(b'mdhd') + 4
    assert data[place] == 0, 'version'
    struct.pack_into('>I', data, place + 12, scale)
    (tmp_path / 'a.mp4').write_bytes(data)
    clip = Clip(tmp_path / 'a.mp4')
    times = [clip.time_ns(index) for index in range(COUNT)]
    assert np.diff(times).min() > 0
    assert times[-1] < 10**17
    assert [shown(frame) for _, frame in clip] == list(range(COUNT))


# --- orientation and depth


@pytest.mark.parametrize(('turn', 'matrix'), [(3, (0, 1, -1, 0)), (2, (-1, 0, 0, -1)), (1, (0, -1, 1, 0))])
def test_a_rotation_in_the_container_is_applied(videos, tmp_path, turn, matrix):
    """Numbers of the matrix are 16.16, in the order a b u c d v x y w."""
    data = bytearray((videos / 'h264.mp4').read_bytes())
    a, b, c, d = matrix
    struct.pack_into('>9i', data, data.index(b'tkhd') + 44, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / 'a.mp4').write_bytes(data)
    expected = next(iter(Clip(videos / 'h264.mp4')))[1]
    np.testing.assert_array_equal(next(iter(Clip(tmp_path / 'a.mp4')))[1], np.rot90(expected, turn))


def test_a_mirrored_video_is_read_as_it_is_shown(videos, tmp_path):
    data = bytearray((videos / 'h264.mp4').read_bytes())
    struct.pack_into('>i', data, data.index(b'tkhd') + 44, -1 << 16)
    (tmp_path / 'a.mp4').write_bytes(data)
    expected = next(iter(Clip(videos / 'h264.mp4')))[1]
    np.testing.assert_array_equal(next(iter(Clip(tmp_path / 'a.mp4')))[1], expected[:, ::-1])


def test_frames_are_freed_without_the_garbage_collector(videos):
    gc.collect()
    gc.disable()
    try:
        list(Clip(videos / 'h264.mp4'))
        assert not any(isinstance(item, av.VideoFrame) for item in gc.get_objects())
    finally:
        gc.enable()


def write_deep(path, codec, pixels, frames, form):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=form)))
        container.mux(stream.encode(None))
    return path


def test_frames_of_more_than_eight_bits_keep_them_on_request(tmp_path):
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    path = write_deep(tmp_path / 'grey.mkv', 'ffv1', 'gray16le', [grey], 'gray16le')
    ((_, deep),) = Clip(path).frames(deep=True)
    np.testing.assert_array_equal(deep, grey)
    ((_, plain),) = Clip(path)
    assert (plain.shape, plain.dtype) == ((48, 64, 3), np.uint8)
    low, high = np.percentile(grey, (0.5, 99.5))  # the range of `auto`
    assert np.abs(plain[..., 0] - np.clip((grey - low) / (high - low), 0, 1) * 255).max() < 2

    twelve = grey % 4096
    path = write_deep(tmp_path / 'twelve.mkv', 'ffv1', 'gray12le', [twelve], 'gray12le')
    ((_, deep),) = Clip(path).frames(deep=True)
    np.testing.assert_array_equal(deep, twelve), 'not scaled to 16 bits'

    colours = np.stack([grey, grey[::-1], grey.T.reshape(48, 64)], axis=-1)
    path = write_deep(tmp_path / 'colour.mkv', 'ffv1', 'gbrp16le', [colours], 'rgb48le')
    ((_, deep),) = Clip(path).frames(deep=True)
    assert (deep.shape, deep.dtype) == ((48, 64, 3), np.uint16)
    np.testing.assert_allclose(deep.astype(int), colours, atol=8)

    ((_, shallow), *_) = Clip(write_video(tmp_path / 'shallow.mp4')).frames(deep=True)
    assert (shallow.shape, shallow.dtype) == ((*SIZE, 3), np.uint8)


# --- hostile files


def test_a_video_of_a_name_that_is_a_pattern_an_option_or_no_utf8_is_read(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (b'-i.mp4', b'file:a.mp4', b'concat:a|b.mp4', b'v_%02d.mp4', b'a\xff.mp4', b'pipe:0', b'a b;c'):
        path = Path(os.fsdecode(name))
        path.write_bytes((videos / 'h264.mp4').read_bytes())
        assert [shown(frame) for _, frame in Clip(path)] == list(range(COUNT))


def test_pipes_and_devices_are_refused_as_videos(tmp_path):
    os.mkfifo(tmp_path / 'a.mp4')
    for path in (tmp_path / 'a.mp4', '/dev/zero'):
        with pytest.raises(FrameError, match='no such video or folder'):
            Clip(path)


def test_frames_of_too_many_pixels_are_not_decoded(videos, tmp_path, monkeypatch):
    """Neither by the header, nor where the size changes within the stream."""
    monkeypatch.setattr(pictures, 'MAX_PIXELS', SIZE[0] * SIZE[1])
    large = write_video(tmp_path / 'large.ts', size=(48, 144))
    with pytest.raises(FrameError, match=f'its frames are 144×48; at most {48 * 128} pixels'):
        Clip(large)
    both = tmp_path / 'both.ts'
    both.write_bytes((videos / 'h264.ts').read_bytes() + large.read_bytes())
    frames = [frame for _, frame in Clip(both).frames()]
    assert len(frames) == 2 * COUNT
    given = {index: shown(frame) for index, frame in enumerate(frames) if not isinstance(frame, FrameError)}
    assert COUNT - 2 <= len(given) <= COUNT
    assert all(index == found for index, found in given.items())


def test_a_header_that_promises_billions_of_frames_costs_nothing(videos, tmp_path):
    data = bytearray((videos / 'mjpeg.avi').read_bytes())
    struct.pack_into('<I', data, data.index(b'strh') + 8 + 32 - 4 + 0, 2**31 - 1)
    struct.pack_into('<I', data, data.index(b'avih') + 8 + 16, 2**31 - 1)
    (tmp_path / 'a.avi').write_bytes(data)
    assert len(Clip(tmp_path / 'a.avi')) <= len(data)


def test_absurd_gaps_in_the_times_are_no_lost_frames():
    """Names of lost frames take memory: 50 000 for each of five gaps."""
    count, gap = 40, 50_000
    times = np.cumsum([1 if index % 8 else gap for index in range(count)])
    given = Packets(*(array('q', times.tolist()) for _ in range(2)), *(array('q', [0] * count) for _ in range(2)))
    given.keyframe.extend(b'\1' * count)
    index = index_of(given, Header(Fraction(1, 30), Fraction(30)))
    assert (len(index), index.lost) == (count, [])
    assert index.times_ns[-1] == round((times[-1] - times[0]) * 1e9 / 30), 'the times remain'


def test_an_mp4_that_counts_more_samples_than_it_has_bytes_is_refused(videos, tmp_path):
    """FFmpeg would allocate some 70 bytes for each of 50 million, and count them for 25 s."""
    data = bytearray((videos / 'mpeg4.mp4').read_bytes())
    many = 50_000_000
    struct.pack_into('>II', data, data.index(b'stsz') + 8, 1, many)
    struct.pack_into('>III', data, data.index(b'stts') + 8, 1, many, 1)
    struct.pack_into('>I', data, data.index(b'stsc') + 16, many)
    (tmp_path / 'a.mp4').write_bytes(data)
    with pytest.raises(FrameError, match='its header counts more than 50000000 samples'):
        Clip(tmp_path / 'a.mp4')


def test_a_video_that_cannot_be_decoded_names_the_remedy(videos, tmp_path):
    data = (videos / 'vp9.webm').read_bytes().replace(b'V_VP9', b'V_VQ9')
    (tmp_path / 'a.mp4').write_bytes(data)
    (tmp_path / 'b.mp4').write_bytes(b'no video')
    for name in ('a.mp4', 'b.mp4'):
        with pytest.raises(FrameError, match='ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4'):
            list(Clip(tmp_path / name))


def test_what_ffmpeg_says_of_a_damaged_video_is_not_printed(videos, tmp_path, capfd):
    data = bytearray((videos / 'h264.mp4').read_bytes())
    for place, _, _, _ in packets(videos / 'h264.mp4'):
        data[place + 6 : place + 16] = b'\x1b[2J\x1b[31m!'
    (tmp_path / 'a.mp4').write_bytes(data)
    assert any(isinstance(frame, FrameError) for _, frame in Clip(tmp_path / 'a.mp4').frames())
    assert capfd.readouterr() == ('', '')


def test_reading_beside_opencv_gives_the_same_picture(videos):
    """Both packages contain an FFmpeg of their own."""
    import cv2

    assert cv2.imencode('.png', disc(0))[0]
    assert shown(next(iter(Clip(videos / 'h264.mp4')))[1]) == 0
