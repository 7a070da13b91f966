# SPDX-License-Identifier: MIT
"""Every row of docs/inputs.md has a test, and the sentences in it are those that are said."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from needs import require

require('av', 'rosbags.rosbag2')

from inputs.damage import CLASSES, read
from inputs.rows import LOCAL
from xmem_ros.errors import SeedError
from xmem_ros.media import read_mask

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r'^#{2,3} (.+)$')
CODE = re.compile(r'`([^`]+)`')


def documented() -> dict[str, list[str]]:
    """Return the rows of the tables → their cells; the first column is the row."""
    rows, section = {}, ''
    for line in (ROOT / 'docs' / 'inputs.md').read_text().splitlines():
        if found := SECTION.match(line):
            section = found[1]
        cells = [cell.strip() for cell in line.strip('|').split(' | ')]
        heads = ('input', 'not read')
        if line.startswith('| ') and section != 'What cannot be noticed' and cells[0] not in (*heads, '---'):
            rows[f'{section}: {cells[0]}'] = cells
    return rows


ROWS = documented()


def pattern(sentence: str) -> str:
    return '.+'.join(re.escape(part.strip(' ')) for part in sentence.split('…')).replace(r'\ ', ' ')


WHOLE = ('inputs/test_damage.py', 'test_whole_inputs_are_read_in_full_and_nothing_is_said')
ELSEWHERE = {
    'What is read: videos in MP4, AVI, Matroska, WebM and MPEG-TS: H.264, MPEG-4, VP9, AV1, MJPEG and others': WHOLE,
    'What is read: videos of a variable rate': (
        'video/test_reader.py',
        'test_frames_of_a_variable_rate_have_their_own_times',
    ),
    'What is read: rotated or mirrored videos': (
        'video/test_reader.py',
        'test_a_rotation_in_the_container_is_applied',
    ),
    'What is read: videos of more than 8 bits': (
        'video/test_reader.py',
        'test_frames_of_more_than_eight_bits_keep_them_on_request',
    ),
    'What is read: folders of PNG, JPEG, TIFF, BMP or WebP': (
        'package/test_media.py',
        'test_frames_are_read_in_the_order_of_their_numbers',
    ),
    'What is read: folders of pictures of more than 8 bits': (
        'package/test_media.py',
        'test_images_of_more_than_8_bits_keep_the_range_of_the_first_one',
    ),
    'What is read: bags: mcap and sqlite3, compressed or not': (
        'recordings/test_recording.py',
        'test_every_storage_and_compression_gives_the_same_images',
    ),
    'What is read: bags in several files': (
        'recordings/test_bag_files.py',
        'test_files_of_several_recorders_are_merged_by_time',
    ),
    'What is read: bags of a killed recorder': (
        'recordings/test_bag_files.py',
        'test_messages_that_are_only_in_the_journal_of_a_killed_recorder_are_read',
    ),
    'What is read: raw images in a bag or from a camera': (
        'conversions/test_images.py',
        'test_every_encoding_that_ros_lists_is_read_or_refused_with_the_reason',
    ),
    'What is read: compressed images in a bag or from a camera': (
        'conversions/test_compressed_images.py',
        'test_grey_and_16_bit_images_are_read',
    ),
    'What is read: mask files': (
        'package/test_label_images.py',
        'test_mask_files_of_every_kind_are_read_or_refused',
    ),
    'What is read: data sets of `evaluate`': (
        'evaluation/test_layouts.py',
        'test_davis_2017_val_scores_every_object',
    ),
    'What is read: data sets of `train`': (
        'training/test_footage.py',
        'test_videos_are_read_from_all_layouts_of_the_data_sets',
    ),
    'Videos: more than 8 bits': (
        'offline/test_deep_images.py',
        'test_what_was_done_with_the_input_is_said',
    ),
    'Videos: playlist': (
        'package/test_media.py',
        'test_a_playlist_is_refused_as_a_video',
    ),
    'Videos: frames of more than 64 million pixels': (
        'video/test_reader.py',
        'test_frames_of_too_many_pixels_are_not_decoded',
    ),
    'Folders: folder without a readable picture': (
        'recordings/test_hostile.py',
        'test_a_folder_without_a_usable_frame_is_refused',
    ),
    'Masks and seeds: mask of another size than the image': (
        'offline/test_track.py',
        'test_unusable_input_is_named_with_exit_code_2_and_leaves_no_files',
    ),
    'Masks and seeds: images before the first seed': (
        'offline/test_tracking.py',
        'test_stamps_that_jump_back_keep_or_reset_the_objects_and_are_reported',
    ),
    'Masks and seeds: recorded seed whose image is not in the bag': (
        'offline/test_tracking.py',
        'test_a_recorded_seed_without_its_image_is_reported_and_does_not_end_the_run',
    ),
    'Masks and seeds: recorded seed in a damaged chunk': (
        'recordings/test_recording.py',
        'test_recorded_seeds_in_a_damaged_chunk_are_counted',
    ),
    'Masks and seeds: seed of an image that is left out': (
        'offline/test_tracking.py',
        'test_a_seed_of_an_undecodable_image_is_refused',
    ),
    'Data sets: `evaluate`: frame or mask that is missing, damaged or of another size': (
        'evaluation/test_evaluation.py',
        'test_a_fault_in_a_data_set_is_reported_with_its_file',
    ),
    'Data sets: `evaluate`: listed sequence that is missing': (
        'evaluation/test_layouts.py',
        'test_a_root_without_a_listed_sequence_is_refused',
    ),
    'Data sets: `train`: picture or mask that is damaged or has no partner': (
        'training/test_footage.py',
        'test_faults_in_the_data_are_refused_by_file',
    ),
    'Data sets: `train`: frame of a video without a mask': (
        'training/test_footage.py',
        'test_a_mask_without_an_image_is_refused_and_a_frame_without_a_mask_is_skipped',
    ),
    'Live images: image that cannot be decoded': (
        'node/test_bad_input.py',
        'test_an_unreadable_image_is_dropped_and_counted',
    ),
    'Live images: more than 8 bits': (
        'conversions/test_images.py',
        'test_the_range_of_the_first_image_is_kept_for_later_ones',
    ),
}


def said_of(row: str, folder: Path) -> tuple[str, bool]:
    """Return what is said of a row's input, and whether it is refused."""
    path = LOCAL[row](folder)
    if row.startswith('Masks'):
        notes: list[str] = []
        try:
            read_mask(path, notes)
        except SeedError as error:
            return str(error), True
        return '; '.join(notes), False
    outcome = read(path)
    return f'{outcome.refused}; {outcome.said}; {"; ".join(outcome.reasons)}', bool(outcome.refused)


@pytest.mark.parametrize('row', LOCAL)
def test_the_sentence_of_a_row_is_said(row, tmp_path):
    said, refused = said_of(row, tmp_path)
    for sentence in CODE.findall(ROWS[row][2]):
        assert re.search(pattern(sentence), said), said
    assert refused == (ROWS[row][3] == '2'), said


def test_every_row_has_a_test_and_every_test_a_row():
    assert {*LOCAL, *ELSEWHERE} == set(ROWS)
    assert set(LOCAL) & set(ELSEWHERE) == set()


@pytest.mark.parametrize('row', ELSEWHERE)
def test_the_test_of_a_row_exists(row):
    file, name = ELSEWHERE[row]
    tree = ast.parse((ROOT / 'test' / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_page_has_the_figures_of_every_class_of_inputs():
    text = (ROOT / 'docs' / 'inputs.md').read_text()
    assert [name for name in CLASSES if f'\n| {name} | ' not in text] == []
