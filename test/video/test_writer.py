# SPDX-License-Identifier: MIT
"""Videos that are written: format, times, sizes, and failures."""

import logging
import resource

import av
import numpy as np
import pytest
from video_files import SIZE, disc, shown

from xmem_ros.errors import FrameError, OutputError
from xmem_ros.video import writer as video_writer
from xmem_ros.video.clip import Clip
from xmem_ros.video.writer import VideoWriter

STAMPS = [10**18 + offset for offset in (0, 33_000_000, 34_000_000, 900_000_000, 5_000_000_000)]


def write(path, stamps=STAMPS, size=SIZE):
    with VideoWriter(path, 10) as video:
        for index, stamp in enumerate(stamps):
            video.write(disc(index, size), stamp)


def test_a_video_is_h264_for_browsers_with_the_times_that_it_was_given(tmp_path):
    write(tmp_path / 'a.mp4')
    with av.open(str(tmp_path / 'a.mp4')) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
    data = (tmp_path / 'a.mp4').read_bytes()
    assert data.index(b'moov') < data.index(b'mdat'), 'it plays before it is loaded'
    clip = Clip(tmp_path / 'a.mp4')
    assert [clip.time_ns(index) for index in range(5)] == [stamp - STAMPS[0] for stamp in STAMPS]
    frames = [frame for _, frame in clip]
    assert [shown(frame) for frame in frames] == list(range(5))
    assert np.abs(frames[0].mean((0, 1)) - disc(0).mean((0, 1))).max() < 2, 'the same colours'


def test_equal_frames_give_equal_bytes(tmp_path):
    for name in ('a.mp4', 'b.mp4'):
        write(tmp_path / name)
    assert (tmp_path / 'a.mp4').read_bytes() == (tmp_path / 'b.mp4').read_bytes()


def test_frames_of_odd_sizes_are_padded_by_a_pixel(tmp_path):
    write(tmp_path / 'a.mp4', size=(47, 127))
    frames = [frame for _, frame in Clip(tmp_path / 'a.mp4')]
    assert {frame.shape for frame in frames} == {(48, 128, 3)}
    assert np.abs(frames[0][:47, :127].astype(int) - disc(0, (47, 127))).mean() < 3


def test_without_an_encoder_of_h264_the_video_is_mpeg4_with_a_warning(tmp_path, monkeypatch, caplog):
    codecs = {'none_such': 1, 'mpeg4': 60_000}
    monkeypatch.setattr(video_writer, '_CODECS', codecs)
    with caplog.at_level(logging.WARNING):
        write(tmp_path / 'a.mp4')
    assert len(caplog.records) == 1
    assert 'MPEG-4' in caplog.text
    with av.open(str(tmp_path / 'a.mp4')) as container:
        assert container.streams.video[0].codec_context.name == 'mpeg4'
    clip = Clip(tmp_path / 'a.mp4')
    assert [clip.time_ns(index) for index in range(5)] == pytest.approx([s - STAMPS[0] for s in STAMPS], abs=10_000)


def test_a_video_appears_only_when_it_is_whole(tmp_path):
    (tmp_path / 'a.mp4').write_bytes(b'old')

    def fail():
        with VideoWriter(tmp_path / 'a.mp4', 10) as video:
            video.write(disc(0))
            assert (tmp_path / 'a.mp4').read_bytes() == b'old'
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ['a.mp4']
    assert (tmp_path / 'a.mp4').read_bytes() == b'old'


def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path):
    """A limit on the size of files stands for the disk: Python ignores its signal."""
    chance = np.random.default_rng(0)

    def fill():
        with VideoWriter(tmp_path / 'a.mp4', 10) as video:
            for _ in range(60):
                video.write(chance.integers(0, 255, (48, 128, 3), np.uint8))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match='check the room on the disk'):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FrameError, match='cannot be written'), VideoWriter(tmp_path / 'none' / 'a.mp4', 10) as video:
        video.write(disc(0))
