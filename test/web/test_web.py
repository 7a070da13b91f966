# SPDX-License-Identifier: MIT
"""Page in a real browser with the real node: user actions reach the node's topics."""

import re
import struct
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'aiohttp', 'playwright')

import node_harness as robots
from node_harness import iou, pixels_of, wait_until
from page_harness import (
    DESKTOP,
    HEIGHT,
    MUG,
    PHONE,
    SCENE,
    WIDTH,
    drag,
    draw_box,
    seed,
    shown_candidate,
    spot,
    stamp_shown,
    stamp_text,
)
from playwright.sync_api import expect
from sensor_msgs.msg import CompressedImage, Image
from web_harness import SLOW_S, WebProcess, page_of, run, serving

from xmem_ros.msg import Seed

HISTORY = 15  # images that the node keeps
MAGNIFIED = """() => {
    const canvas = document.getElementById('draft');
    return canvas.getContext('2d').getImageData(canvas.width - 64, canvas.height - 64, 1, 1).data[3] === 255;
}"""


def test_a_box_seeds_the_image_on_which_it_was_drawn(open_page, robot):
    page = open_page()
    draw_box(page, *MUG)
    expect(page.locator('#state')).to_have_text('frozen')
    frozen = stamp_shown(page)
    later = len(robot.labels) + 2 * HISTORY
    wait_until(lambda: len(robot.labels) > later, 'more images than the node keeps')
    assert stamp_shown(page) == frozen
    assert np.abs(np.subtract(page.evaluate('drawing.box'), MUG)).max() <= 2
    shown = shown_candidate(page)
    accepted = seed(page, robot, 'mug')
    assert stamp_text(accepted.header) == frozen
    assert [(item.kind, item.name, item.id) for item in accepted.seeds] == [(Seed.MASK, 'mug', 0)]
    assert ((pixels_of(accepted.seeds[0].mask) > 0) == shown).all()
    expect(page.locator('#objects li')).to_have_count(1)
    expect(page.locator('#objects li .name')).to_contain_text('mug')
    expect(page.locator('#objects li')).to_contain_text('tracked')
    expect(page.locator('#state')).to_have_text('live')
    assert iou(pixels_of(robot.labels[-1]) == 1, SCENE[0][1] == 2) > 0.8
    expect(page.locator('#rate')).to_contain_text('Hz')
    expect(page.locator('#age')).not_to_have_text('–')
    expect(page.locator('#memory')).to_have_text(re.compile(r'^[1-9]\d* MB$'))


def test_an_object_is_corrected_by_painting_and_keeps_its_id(open_page, robot):
    page = open_page()
    draw_box(page, *MUG)
    seed(page, robot, 'mug')
    page.click('#objects .correct')
    expect(page.locator('#target')).to_contain_text('Correcting mug')
    expect(page.locator('#name')).to_have_value('mug')
    page.click('[data-tool=mask]')
    drag(page, (195, 125), (235, 125), (235, 180), (195, 180), (195, 150), (230, 150))
    page.click('[data-brush="0"]')
    drag(page, (230, 180), (240, 180))
    frozen = stamp_shown(page)
    accepted = seed(page, robot, 'cup')
    assert stamp_text(accepted.header) == frozen
    assert list(accepted.ids) == [1]
    (given,) = accepted.seeds
    assert (given.kind, given.id, given.name) == (Seed.MASK, 1, 'cup')
    mask = pixels_of(given.mask) > 0
    assert mask.shape == SCENE.size
    assert mask[125, 195:235].all() and mask[150, 195:230].all()
    assert not mask[180, 231:239].any()  # rubbed out
    assert not mask[100].any() and not mask[:, 160].any()
    expect(page.locator('#objects li')).to_contain_text('cup')
    expect(page.locator('#target')).to_be_hidden()


def test_touches_on_a_phone_give_points_and_boxes(open_page, robot):
    page = open_page(PHONE, touch=True)
    page.tap('[data-tool=points]')
    page.touchscreen.tap(*spot(page, 212, 145))
    page.touchscreen.tap(*spot(page, 60, 60))
    page.touchscreen.tap(*spot(page, 60, 60))  # takes it away again
    page.tap('[data-sign="0"]')
    page.touchscreen.tap(*spot(page, 300, 60))
    frozen = stamp_shown(page)
    points = page.evaluate('drawing.points')
    assert np.abs(np.subtract(points, [(212, 145, 1), (300, 60, 0)])).max() <= 2
    shown = shown_candidate(page)
    assert shown[145, 212] and not shown[60, 300]
    accepted = seed(page, robot)
    assert stamp_text(accepted.header) == frozen
    assert ((pixels_of(accepted.seeds[0].mask) > 0) == shown).all()
    expect(page.locator('#objects li')).to_contain_text('object 1')

    page.tap('[data-tool=box]')
    finger = page.context.new_cdp_session(page)
    for kind, place in (('Start', (28, 107)), ('Move', (70, 150)), ('Move', (118, 192)), ('End', None)):
        x, y = spot(page, *place) if place else (0, 0)
        points = [{'x': x, 'y': y}] if place else []
        finger.send('Input.dispatchTouchEvent', {'type': f'touch{kind}', 'touchPoints': points})
        if kind == 'Move':  # what the finger hides is shown, enlarged, in a corner
            assert page.evaluate(MAGNIFIED)
    assert not page.evaluate(MAGNIFIED)
    assert np.abs(np.subtract(page.evaluate('drawing.box'), (28, 107, 90, 85))).max() <= 3
    shown = shown_candidate(page)
    assert ((pixels_of(seed(page, robot).seeds[0].mask) > 0) == shown).all()


def test_an_object_is_removed_at_once_and_all_objects_after_a_confirmation(open_page, robot):
    page = open_page()
    for name, box in (('one', MUG), ('two', (28, 107, 90, 90)), ('three', (320, 105, 82, 82))):
        draw_box(page, *box)
        seed(page, robot, name)
    expect(page.locator('#objects li')).to_have_count(3)
    page.click('#objects li[data-id="2"] .remove')
    wait_until(lambda: [item.name for item in robot.objects[-1].objects] == ['one', 'three'], 'the removal')
    expect(page.locator('#objects li')).to_have_count(2)
    page.click('#reset')
    page.click('#confirm-no')
    page.click('#reset')
    page.click('#confirm-yes')
    wait_until(lambda: not robot.objects[-1].objects, 'the reset')
    expect(page.locator('#no-objects')).to_be_visible()
    draw_box(page, *MUG)
    assert list(seed(page, robot).ids) == [1]


def test_a_missing_image_is_reported_and_another_one_can_be_drawn_on(open_page, robot):
    page = open_page()
    draw_box(page, *MUG)
    held = set()

    def others_are_held():  # the page's image is the first to go
        newest = robot.labels[-1].header
        if stamp_text(newest) > stamp_shown(page) and stamp_text(newest) not in held:
            held.add(stamp_text(newest))
            robot.hold(newest.stamp)
        return len(held) > HISTORY + 5

    wait_until(others_are_held, 'other images to be held')
    page.click('#seed')
    expect(page.locator('#refusal')).to_contain_text('The node no longer has this image')
    expect(page.locator('#refusal')).to_contain_text('try again')
    assert not robot.objects[-1].objects
    page.click('#freeze')
    expect(page.locator('#state')).to_have_text('live')
    expect(page.locator('#refusal')).to_be_hidden()
    draw_box(page, *MUG)
    seed(page, robot)


def test_a_refused_seed_keeps_the_drawing_for_another_try(open_page, robot):
    page = open_page()
    draw_box(page, 10, 10, 5, 5)
    page.click('#seed')
    expect(page.locator('#refusal')).to_contain_text(re.compile('BOX|nothing stands out'))
    draw_box(page, *MUG)
    seed(page, robot)
    expect(page.locator('#refusal')).to_be_hidden()


def test_the_overlay_is_subscribed_to_only_while_a_page_shows_it(open_page, robot):
    overlay = f'{robot.prefix}/overlay/compressed'

    def subscribers(count):
        wait_until(lambda: robot.node.count_subscribers(overlay) == count, f'{count} subscribers', SLOW_S)

    subscribers(0)
    page = open_page()
    subscribers(1)
    page.click('#freeze')
    subscribers(0)
    page.keyboard.press('Escape')
    subscribers(1)
    page.close()
    subscribers(0)


def test_a_page_gets_the_jpeg_of_the_node_as_it_is(robot):
    heard = robot.listen(CompressedImage, '~/overlay/compressed')

    async def jpeg():
        async with serving(node=robot.prefix) as address, page_of(address) as page:
            while (message := await page.receive(SLOW_S)).type != aiohttp.WSMsgType.BINARY:
                pass
            return message.data[4 + struct.unpack_from('<I', message.data)[0] :]

    with ThreadPoolExecutor() as pool:  # the browser of other tests has a loop in this thread
        sent = pool.submit(run, jpeg()).result()
    wait_until(lambda: sent in [bytes(message.data) for message in list(heard)], 'the same JPEG', SLOW_S)
    assert not robot.node.count_subscribers(f'{robot.prefix}/overlay')


def test_the_page_reports_an_inactive_node_and_continues_once_it_is_active(open_page, robot):
    page = open_page()
    assert robot.change_state('deactivate')
    try:
        expect(page.locator('#notice-title')).to_have_text('The tracker is inactive')
        expect(page.locator('#notice-text')).to_contain_text(f'ros2 lifecycle set {robot.prefix} activate')
        expect(page.locator('#no-objects')).to_have_text('Unknown: the tracker is inactive.')
    finally:
        assert robot.change_state('activate')
    expect(page.locator('#notice')).to_be_hidden()
    expect(page.locator('#state')).to_have_text('live')


def test_missing_images_are_reported(open_page, robot):
    robot.camera.pause.set()
    try:
        page = open_page(live=False)
        expect(page.locator('#notice-title')).to_have_text('Waiting for the first image')
        expect(page.locator('#notice-text')).to_contain_text(f'No image on {robot.namespace}/image for')
        # the camera is there and silent: who offers what, and what to do
        expect(page.locator('#notice-text')).to_contain_text('robot offers sensor_msgs/msg/Image')
        expect(page.locator('#notice-text')).to_contain_text('the camera sends nothing')
        expect(page.locator('#no-objects')).to_have_text('Unknown until the first image arrives.')
        page.set_viewport_size({'width': 320, 'height': 568})
        inner, outer = (page.locator(item).bounding_box() for item in ('#notice', '#stage'))
        assert inner['height'] <= outer['height']  # nothing of it is cut off
        assert page.locator('#notice-text').bounding_box()['y'] >= outer['y']
        page.set_viewport_size({'width': DESKTOP[0], 'height': DESKTOP[1]})
        robot.camera.pause.clear()
        expect(page.locator('#state')).to_have_text('live')
        robot.camera.pause.set()
        expect(page.locator('#strip')).to_contain_text(f'No image on {robot.namespace}/image for')
    finally:
        robot.camera.pause.clear()
    expect(page.locator('#strip')).to_be_hidden()


def test_a_tracker_without_a_camera_is_shown_as_waiting_for_its_topic(browser):
    with robots.running({'size': 64, 'no_image_warning_after': 600.0, 'diagnostics_period': 0.5}) as robot:
        process = WebProcess(robot.prefix)
        page = browser.new_page()
        try:
            page.goto(process.address)
            notice = page.locator('#notice-text')
            expect(notice).to_have_text(
                f'The tracker {robot.prefix} is active and waiting for images on {robot.namespace}/image.'
            )
            elsewhere = robot.node.create_publisher(Image, f'{robot.namespace}/camera/image_raw', 1)
            robot.node.destroy_publisher(robot.images)
            assert robot.set_parameter('no_image_warning_after', 1.0).successful
            expect(notice).to_contain_text('nobody publishes it')
            expect(notice).to_contain_text('Start the camera, or give its topic: image:=/its/topic')
            expect(notice).to_contain_text(re.compile(f'Topics with images: .*{elsewhere.topic_name}'))
            assert f'{robot.prefix}/' not in notice.text_content().partition('Topics with images')[2]
        finally:
            page.close()
            process.close()


def test_the_page_reconnects_and_reports_a_missing_node(open_page, robot, browser):
    process = WebProcess('/nowhere/xmem')
    page = browser.new_page()
    try:
        page.goto(process.address)
        expect(page.locator('#notice-title')).to_have_text('Tracker not found')
        expect(page.locator('#notice-text')).to_contain_text('No node /nowhere/xmem is visible')
        expect(page.locator('#notice-text')).to_contain_text(f'Visible trackers: {robot.prefix}. Start the node')
        expect(page.locator('#no-objects')).to_have_text('Unknown: the tracker was not found.')
        wait_until(lambda: 'no node /nowhere/xmem was found' in process.output, 'the word in the shell', SLOW_S)
        assert f'visible trackers: {robot.prefix}. Start it' in process.output
        process.close()
        expect(page.locator('#notice-title')).to_have_text('Connecting')
        process = WebProcess(robot.prefix, process.port)
        expect(page.locator('#state')).to_have_text('live')
    finally:
        page.close()
        process.close()


@pytest.mark.parametrize('size', [DESKTOP, PHONE, (320, 568), (844, 390), (1920, 1080)])
def test_the_page_fits_the_screen_at_every_size(open_page, robot, size):
    page = open_page(size, touch=size[0] < 900)
    draw_box(page, *MUG)
    seed(page, robot, 'a name that is as long as names of things on robots may well become')
    expect(page.locator('#objects li')).to_contain_text('tracked')
    page.click('#freeze')
    for tool in ('box', 'points', 'mask'):
        page.click(f'[data-tool={tool}]')
        sizes = page.evaluate('() => [document.documentElement.scrollWidth, window.innerWidth]')
        assert sizes[0] <= sizes[1], tool
        stage = page.locator('#draft').bounding_box()
        assert stage['width'] / stage['height'] == pytest.approx(WIDTH / HEIGHT, rel=0.03)
        for button in page.locator('button:visible').all():
            frame = button.bounding_box()
            assert frame['x'] >= 0 and frame['x'] + frame['width'] <= size[0], button.text_content()
            assert frame['height'] >= 35  # a finger's width, about
