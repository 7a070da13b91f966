# SPDX-License-Identifier: MIT
"""Figures, video and pictures of a demonstration."""

import cv2
import numpy as np
import pytest

from xmem_ros.demo.report import ClipResult, Report, contact_sheet, iou
from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.video.clip import Clip


def test_iou_equals_values_computed_by_hand():
    mask, truth = np.zeros((2, 10, 10), np.uint8)
    assert iou(mask > 0, truth) == 1
    mask[:, :4], truth[:, 2:8] = 1, 1
    assert iou(mask > 0, truth) == pytest.approx(20 / 80)
    truth[:, 6:] = 255
    assert iou(mask > 0, truth) == pytest.approx(20 / 60)


def tracked_object(number, label=None):
    return TrackedObject(
        number, label or number, f'o{number}', ObjectState.TRACKED, 0.9, (0, 0, 4, 4), 16, (2, 2), 1, 0, 0.1, 0.0
    )


def tracked_frame(delay_ms, numbers=(1,), labels=None):
    image = np.ones((60, 80), np.uint8) if labels is None else labels
    return ClipResult([tracked_object(number) for number in numbers], lambda: image, delay_ms)


def make_report(tracked, published=10):
    return Report(published=published, rate=20.0, ids=[1], labels=[1], names=['cup'], tracked=tracked)


def test_the_table_counts_tracked_and_dropped_frames():
    report = make_report({index: tracked_frame(delay) for index, delay in [(0, 10.0), (4, 20.0), (8, 90.0), (9, 30.0)]})
    report.iou = {'cup': [0.5, 1.0]}
    lines = {line[:18].strip(): line[18:].strip() for line in report.table().splitlines()}
    assert lines['frames in'] == '10 at 20.0 frames/s'
    assert lines['tracked'] == '4'
    assert lines['dropped'].split()[0] == '6'
    assert lines['rate'] == '8.0 frames/s'  # 4 of 10 at 20 a second
    # p95 of 10, 20, 30, 90: 85 % of the way from 30 to 90
    assert lines['image to publish'] == '25 ms median, 81 ms p95'
    assert lines['IoU of cup'] == '0.750 mean, 0.500 lowest'
    assert lines['ids stable'] == 'yes: 1'


@pytest.mark.parametrize('numbers', [(), (2,), (1, 2)])
def test_changed_ids_are_reported(numbers):
    report = make_report({0: tracked_frame(1.0), 1: tracked_frame(1.0, numbers)})
    assert 'ids stable        NO: frame 1' in report.table()


def test_the_report_draws_a_video_as_long_as_the_clip_and_six_frames(tmp_path):
    half = np.zeros((60, 80), np.uint8)
    half[:, :40] = 1
    report = make_report({index: tracked_frame(1.0, labels=half) for index in range(0, 10, 2)})
    truth = {4: {'cup': np.ones((60, 80), np.uint8)}}
    frames = [np.full((60, 80, 3), 20 * index, np.uint8) for index in range(10)]
    report.draw(frames, lambda index: truth.get(index, {}), tmp_path, progress=False)
    video = Clip(tmp_path / 'overlay.mp4')
    assert len(list(video)) == 5
    assert video.rate == pytest.approx(10)
    assert report.iou == {'cup': [0.5]}
    sheet = cv2.imread(str(tmp_path / 'frames.png'))
    assert sheet.shape == (2 * 60 + 4, 3 * 80 + 2 * 4, 3)


def test_a_contact_sheet_keeps_order_and_shrinks_large_pictures():
    sheet = contact_sheet([np.full((800, 1280, 3), value, np.uint8) for value in (10, 20, 30, 40)])
    assert sheet.shape == (2 * 400 + 4, 3 * 640 + 2 * 4, 3)
    places = [(10, 10), (10, 700), (10, 1400), (500, 10), (500, 700), (500, 1400), (402, 10)]
    assert [int(sheet[place][0]) for place in places] == [10, 20, 30, 40, 255, 255, 255]
