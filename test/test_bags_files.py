# SPDX-License-Identifier: MIT
"""Files of bags as recorders leave them: without chunks, with a journal, compressed, without metadata, oddly named."""

from __future__ import annotations

import pytest

pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')

from bag_files import image_items, scene, stamp_of, write_without_chunks

from xmem_ros.bags.recording import open_recording


@pytest.fixture(scope='module')
def frames():
    return scene()


def stamps(path) -> list[int]:
    """Of the images of a bag that is whole [ns]."""
    with open_recording(path) as recording:
        found = recording.stamps()
        assert (recording.damage, recording.length) == ('', len(found))
    return found


# --- MCAP without chunks


def test_messages_without_chunks_that_were_written_in_another_order_are_read_by_time(frames, tmp_path):
    items = image_items(frames) + image_items(frames, '/rear/labels')
    items[2], items[3] = items[3], items[2]
    items = [*items[8:], *items[:8]]  # the other topic's messages are all older than the one before the first
    path = write_without_chunks(tmp_path / 'fast.mcap', items)
    assert stamps(path) == [stamp_of(index) for index in range(len(frames))]
    with open_recording(path) as recording:
        both = [received_ns for _, received_ns, _ in recording.raw([])]
    assert both == sorted(received_ns for _, received_ns, _ in items)


def test_a_file_without_chunks_that_was_cut_off_is_read_as_far_as_it_goes(frames, tmp_path):
    items = image_items(frames)
    items[2], items[3] = items[3], items[2]
    path = write_without_chunks(tmp_path / 'fast.mcap', items)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with open_recording(path) as recording:
        assert recording.stamps() == [stamp_of(index) for index in range(4)]
        assert 'fast.mcap was cut off' in recording.damage
        assert 'further' not in recording.damage
