# SPDX-License-Identifier: MIT
"""Candidates on the page, in a real browser, before a drawing is accepted."""

import contextlib
import re

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'aiohttp', 'playwright')

from hostile_node import HostileNode
from node_harness import iou, pixels_of, wait_until
from page_harness import MUG, PHONE, SCENE, drag, draw_box, drawn_at, opened_page, seed, shown_candidate, spot
from playwright.sync_api import expect
from web_harness import SLOW_S, WebProcess

from xmem_ros.msg import Seed

HISTORY = 100  # images that the node keeps: none is gone before it is held, even on a busy machine
ON_MUG = (212, 145)


def points_at(page, *places):
    for place in places:
        page.mouse.click(*spot(page, *place))


def changed_candidate(page, before):
    """Wait for another candidate than before."""
    masks = []

    def changed():
        masks.append(shown_candidate(page))
        return masks[-1].shape != before.shape or (masks[-1] != before).any()

    wait_until(changed, 'another candidate', SLOW_S)
    return masks[-1]


# --- with the real node


def test_the_candidate_is_shown_while_the_user_points_and_undo_brings_back_the_one_before(open_page, robot):
    page = open_page()
    page.click('[data-tool=points]')
    points_at(page, ON_MUG)
    first = shown_candidate(page)
    assert first[ON_MUG[::-1]]
    assert drawn_at(page, ON_MUG[0] + 12, ON_MUG[1])[3] or not first[ON_MUG[1], ON_MUG[0] + 12]
    page.keyboard.press('-')
    y, x = np.argwhere(first)[0]  # a pixel of it
    points_at(page, (x + 0.5, y + 0.5))
    second = changed_candidate(page, first)
    assert not second[y, x]
    page.click('#undo')
    assert (changed_candidate(page, second) == first).all()
    assert not robot.objects[-1].objects
    page.click('#undo')
    expect(page.locator('#preview')).to_be_hidden()
    expect(page.locator('#seed')).to_be_disabled()


def test_an_object_is_seeded_by_the_keyboard_alone(open_page, robot):
    page = open_page()
    page.focus('[data-tool=points]')
    page.keyboard.press('Enter')
    page.focus('#draft')
    page.keyboard.press('ArrowLeft')
    expect(page.locator('#state')).to_have_text('frozen')
    height, width = SCENE.size
    for key, steps in (('Shift+ArrowDown', 2), ('ArrowDown', 5), ('ArrowLeft', 3)):
        for _ in range(steps):
            page.keyboard.press(key)
    place = (width // 2 - 4, height // 2 + 25)
    page.keyboard.press('Enter')
    assert page.evaluate('drawing.points') == [[place[0] + 0.5, place[1] + 0.5, 1]]
    page.keyboard.press('-')
    for _ in range(6):
        page.keyboard.press('Shift+ArrowUp')
    page.keyboard.press(' ')
    assert page.evaluate('drawing.points.length') == 2
    page.keyboard.press('Backspace')
    page.keyboard.press('+')
    assert page.evaluate('drawing.points') == [[place[0] + 0.5, place[1] + 0.5, 1]]
    shown = shown_candidate(page)
    assert shown[place[::-1]]
    page.focus('#name')
    page.keyboard.type('2 mugs')  # digits are text here
    before = len(robot.seeds)
    page.keyboard.press('Enter')
    accepted = wait_until(lambda: robot.seeds[before:], 'the accepted seed', SLOW_S)[0]
    assert accepted.seeds[0].name == '2 mugs'
    assert ((pixels_of(accepted.seeds[0].mask) > 0) == shown).all()


def test_a_box_is_drawn_by_the_keyboard_and_escape_cancels(open_page, robot):
    page = open_page()
    page.focus('#draft')
    page.keyboard.press('Enter')
    for key in ('Shift+ArrowRight', 'Shift+ArrowDown', 'Shift+ArrowRight'):
        page.keyboard.press(key)
    expect(page.locator('#seed')).to_be_disabled()  # the box is not finished
    page.keyboard.press('Enter')
    assert page.evaluate('drawing.box.slice(2)') == [21, 11]
    expect(page.locator('#seed')).to_be_enabled()
    page.keyboard.press('Control+z')
    expect(page.locator('#seed')).to_be_disabled()
    page.keyboard.press('Escape')
    expect(page.locator('#state')).to_have_text('live')
    assert not robot.objects[-1].objects


def test_a_refused_preview_is_shown_and_loses_nothing(open_page, robot):
    page = open_page()
    page.click('[data-tool=points]')
    page.keyboard.press('+')
    points_at(page, ON_MUG)
    shown_candidate(page)
    x, y = page.evaluate('drawing.points[0]')[:2]
    page.evaluate('([x, y]) => { drawing.points.push([x, y, 0]); render(); }', [x, y])  # both on and off
    expect(page.locator('#preview-text')).to_contain_text('is labelled both on and not on the object')
    assert page.evaluate('drawing.points.length') == 2
    page.click('#undo')
    shown_candidate(page)
    seed(page, robot)


def test_painting_begins_from_the_candidate(open_page, robot):
    page = open_page()
    draw_box(page, *MUG)
    shown = shown_candidate(page)
    page.click('[data-tool=mask]')
    drag(page, (40, 20), (80, 20))
    page.click('[data-brush="0"]')
    drag(page, (200, 145), (225, 145))
    mask = pixels_of(seed(page, robot).seeds[0].mask) > 0
    assert mask[20, 40:80].all()
    assert not mask[145, 200:225].any()
    untouched = np.ones_like(mask)
    untouched[5:35] = untouched[125:165] = False
    assert (mask == shown)[untouched].all()


def test_a_correction_begins_with_the_mask_of_the_object_and_a_stroke_refines_it(open_page, robot):
    page = open_page()
    draw_box(page, *MUG)
    shown_candidate(page)
    seed(page, robot, 'mug')
    expect(page.locator('#objects li')).to_contain_text('tracked')
    page.click('#objects .correct')
    own = shown_candidate(page)
    assert iou(own, SCENE[0][1] == 2) > 0.8
    page.click('[data-tool=mask]')
    drag(page, (40, 20), (80, 20))
    accepted = seed(page, robot)
    assert list(accepted.ids) == [1]
    mask = pixels_of(accepted.seeds[0].mask) > 0
    assert mask[20, 40:80].all()
    assert (mask == own)[35:].all()


def test_an_object_is_renamed_by_a_correction_without_a_drawing(open_page, robot):
    page = open_page()
    draw_box(page, *MUG)
    seed(page, robot, 'mug')
    expect(page.locator('#objects li')).to_contain_text('tracked')
    page.click('#objects .correct')
    own = shown_candidate(page)
    accepted = seed(page, robot, 'cup')
    assert [(item.id, item.name) for item in accepted.seeds] == [(1, 'cup')]
    assert ((pixels_of(accepted.seeds[0].mask) > 0) == own).all()


# --- with a node that answers what the test sets


@pytest.fixture
def set_page(browser):
    """Open the page of a node that answers what the test sets."""
    errors = []
    with contextlib.ExitStack() as stack:

        def start(size=PHONE, **options):
            node = HostileNode(**options)
            stack.callback(node.close)
            process = WebProcess(node.name)
            stack.callback(process.close)
            page = opened_page(stack, browser, process.address, errors, size=size, live=False)
            wait_until(
                lambda: (node.say(), page.wait_for_timeout(100), page.evaluate('!!shown'))[2], 'an image', SLOW_S
            )
            node.success = True
            return node, page

        yield start
    assert errors == []


def square(side):
    mask = np.zeros((12, 16), np.uint8)
    mask[2 : 2 + side, 3 : 3 + side] = 255
    return mask


def draw_small_box(page):
    frame = page.locator('#draft').bounding_box()
    page.mouse.move(frame['x'] + frame['width'] * 0.2, frame['y'] + frame['height'] * 0.2)
    page.mouse.down()
    page.mouse.move(frame['x'] + frame['width'] * 0.8, frame['y'] + frame['height'] * 0.8, steps=3)
    page.mouse.up()


def test_several_candidates_are_named_by_size_and_the_chosen_one_is_seeded_exactly(set_page):
    node, page = set_page()
    node.masks, node.qualities = [square(8), square(2), square(5)], [0.9, 0.5, float('nan')]
    draw_small_box(page)
    expect(page.locator('#preview-text')).to_contain_text('Predicted IoU 0.90')
    buttons = page.locator('#candidates button:visible')
    expect(buttons).to_have_text(['Small', 'Medium', 'Large'])
    expect(page.locator('#candidates [aria-checked=true]')).to_have_text('Large')
    assert all(button.bounding_box()['height'] >= 35 for button in buttons.all())
    page.keyboard.press('1')
    expect(page.locator('#candidates [aria-checked=true]')).to_have_text('Small')
    expect(page.locator('#preview-text')).to_contain_text('Predicted IoU 0.50')
    assert shown_candidate(page).sum() == 4
    buttons.nth(1).click()
    expect(page.locator('#preview-text')).not_to_contain_text('Predicted')
    page.click('#seed')
    given = wait_until(lambda: [item for item in node.requests if hasattr(item, 'seeds')], 'the seed', SLOW_S)[0].seeds[
        0
    ]
    assert given.kind == Seed.MASK
    assert (pixels_of(given.mask) == square(5)).all()


def test_of_several_drawings_the_newest_is_previewed_after_the_one_under_way(set_page):
    node, page = set_page()
    node.masks, node.qualities = [square(8)], [0.9]
    node.may_preview.clear()
    try:
        page.click('[data-tool=points]')
        frame = page.locator('#draft').bounding_box()
        for share in (0.2, 0.5, 0.8):
            page.mouse.click(frame['x'] + frame['width'] * share, frame['y'] + frame['height'] * 0.5)
        expect(page.locator('#preview-text')).to_contain_text('Looking for the object')
        expect(page.locator('#seed')).to_be_enabled()
        wait_until(lambda: node.requests, 'the first preview', SLOW_S)
    finally:
        node.may_preview.set()
    shown_candidate(page)
    assert [len(request.seed.points) for request in node.requests] == [1, 3]


def test_with_a_node_without_previews_the_drawing_itself_is_sent(set_page):
    node, page = set_page(previews=False)
    draw_small_box(page)
    page.click('#seed')
    given = wait_until(lambda: node.requests, 'the seed', SLOW_S)[0].seeds[0]
    assert given.kind == Seed.BOX
    expect(page.locator('#toast')).to_have_text(re.compile('Seeded object 1'))
