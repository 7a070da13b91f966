# SPDX-License-Identifier: MIT
"""Hostile node: client and page trust no size, number or markup in its messages."""

import json
import time

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'aiohttp')

import aiohttp
import numpy as np
from hostile_node import MARKUP, HostileNode
from node_harness import wait_until
from sensor_msgs.msg import CompressedImage, Image
from web_harness import SLOW_S, TOKEN, WebProcess, answer, page_of, run, serving

from xmem_ros.client import Box, Candidate, XMemClient
from xmem_ros.client.frames import FramePairs, frame_of
from xmem_ros.conversions.compressed_images import compressed_from_array
from xmem_ros.conversions.images import image_from_array
from xmem_ros.errors import ErrorCode, FrameError, NodeError, SeedError
from xmem_ros.msg import TrackedObject, TrackedObjectArray
from xmem_ros.web.bridge import encode_overlay
from xmem_ros.web.previews import offer_of

LONG = 'x' * 1_000_000


@pytest.fixture
def node():
    node = HostileNode()
    yield node
    node.close()


def tracked(**fields):
    item = TrackedObject(**{'id': 1, 'label': 1, 'name': 'it', 'state': 1, 'score': 0.5, 'area': 4, **fields})
    item.box.width = item.box.height = 2
    return item


def heard(node, client, *items):
    """Publish these items until the client has a frame; return it."""

    def said():
        node.say(*items)
        time.sleep(0.05)
        return client.latest()

    return wait_until(said, 'a frame', 60)


# --- the client


def far(item):
    item.box.x_offset = 4_294_967_295


def wide(item):
    item.box.width = 17


def large(item):
    item.area = 4_294_967_295


def background(item):
    item.label = 0


def stateless(item):
    item.state = 99


@pytest.mark.parametrize('wrong', [far, wide, large, background, stateless])
def test_impossible_objects_give_no_frame(wrong):
    item = tracked()
    labels = image_from_array(np.ones((12, 16), np.uint8), 'mono8', Image)
    assert frame_of(labels, TrackedObjectArray(objects=[item]))[1].box == (0, 0, 2, 2)
    wrong(item)
    with pytest.raises(ValueError, match='object 1|is not a valid'):
        frame_of(labels, TrackedObjectArray(objects=[item]))
    with pytest.raises(FrameError, match='300 objects'):
        frame_of(labels, TrackedObjectArray(objects=[tracked()] * 300))


def test_truncated_label_images_give_no_frame():
    for field, value in (('height', 4_294_967_295), ('width', 4_294_967_295), ('step', 4_294_967_295)):
        labels = image_from_array(np.ones((12, 16), np.uint8), 'mono8', Image)
        setattr(labels, field, value)
        with pytest.raises(FrameError):
            frame_of(labels, TrackedObjectArray())


def test_invalid_responses_are_errors_and_long_ones_are_truncated(node):
    with XMemClient(node.name, timeout=60) as client:
        node.success = True
        for ids in ([], [1, 2], list(range(100_000))):
            node.ids = ids
            with pytest.raises(NodeError, match=f'{len(ids)} ids for 1 seeds'):
                client.seed({'it': Box(1, 1, 4, 4)})
        node.success, node.message = False, LONG
        with pytest.raises(SeedError) as refusal:
            client.seed({'it': Box(1, 1, 4, 4)})
        assert len(str(refusal.value)) < 5000


def test_text_from_a_node_cannot_control_the_terminal(node):
    node.message = 'no\x1b]0;title\x07 room\nfor it'
    with XMemClient(node.name, timeout=60) as client, pytest.raises(SeedError) as refusal:
        client.seed({'it': Box(1, 1, 4, 4)})
    assert str(refusal.value) == 'no�]0;title� room\nfor it'


def test_the_number_of_label_images_without_objects_is_bounded():
    pairs = FramePairs()
    for second in range(1, 20):
        labels = image_from_array(np.ones((4096, 8192), np.uint8), 'mono8', Image)
        labels.header.stamp.sec = second
        assert pairs.add('labels', labels) is None
    held = sum(len(halves['labels'].data) for halves in pairs._pending.values())
    assert 0 < held <= 256 * 2**20
    assert pairs.add('objects', TrackedObjectArray(header=labels.header)).labels.shape == (4096, 8192)


def test_a_client_continues_after_an_unreadable_message(node, capfd):
    wrong = tracked()
    wide(wrong)
    with XMemClient(node.name, timeout=60) as client:
        heard(node, client, tracked())
        for _ in range(200):
            node.say(wrong)
        newest = node._stamp
        frame = wait_until(lambda: heard(node, client, tracked()).stamp_ns > newest * 10**9 and client.latest(), 'more')
        assert frame['it'].box == (0, 0, 2, 2)
    assert capfd.readouterr().err.count('cannot be read') < 10


# --- the page's server


@pytest.mark.parametrize('size', [(1, 100_000), (100_000, 1), (1, 1), (40_000, 3)])
def test_an_overlay_of_any_shape_is_sent_small_or_refused(size):
    try:
        data, full = encode_overlay(image_from_array(np.zeros((*size, 3), np.uint8), 'rgb8', Image))
    except FrameError:
        return
    assert full == size[::-1]
    assert len(data) < 100_000


@pytest.mark.parametrize('size', [(1, 60_000), (3000, 4000)])
def test_a_large_compressed_overlay_is_sent_small(size):
    message = compressed_from_array(np.zeros((*size, 3), np.uint8), 'jpeg', CompressedImage)
    data, full = encode_overlay(message)
    assert full == size[::-1]
    assert len(data) < min(100_000, len(message.data))


@pytest.mark.parametrize('data', [b'', b'\xff\xd8\xff\xe0', b'GIF89a' * 9])
def test_a_compressed_overlay_that_is_no_image_is_refused(data):
    with pytest.raises(FrameError):
        encode_overlay(CompressedImage(format='rgb8; jpeg compressed bgr8', data=data))


def strict(text):
    """Parse JSON as browsers do, without NaN."""
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f'{constant} is no JSON'))


def test_a_page_gets_a_valid_status_whatever_the_node_publishes(node):
    async def check():
        async with serving(node=node.name) as address, page_of(address) as page:
            items = [tracked(id=index, name=LONG[:100_000], score=float('nan'), state=99) for index in range(300)]
            while True:
                node.say(*items, **{'memory (bytes)': 'x', 'no_image': LONG, 'image_topic': LONG})
                message = await page.receive(30)
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                assert len(message.data) < 100_000
                status = strict(message.data)
                if status['objects'] and status['no_image']:
                    return status
                time.sleep(0.05)

    status = run(check())
    assert status['memory'] is None
    assert len(status['objects']) <= 255
    assert {item['score'] for item in status['objects']} == {0.0}


@pytest.mark.parametrize(
    ('code', 'message'),
    [(ErrorCode.INVALID_SEED, 'no image of stamp 1 is held'), (ErrorCode.STAMP_NOT_HELD, 'the picture went away')],
)
def test_a_missing_image_is_recognised_by_its_code_and_not_by_the_text(node, code, message):
    node.code, node.message = code, message

    async def ask():
        async with serving(node=node.name) as address, page_of(address) as page:
            box = {'kind': 'box', 'box': [1, 1, 4, 4], 'stamp': {'sec': 1, 'nanosec': 0}}
            await page.send_json({'type': 'seed', 'request': 1, **box})
            return await answer(page)

    refusal = run(ask())
    assert (refusal['ok'], refusal['gone'], refusal['text']) == (False, code == ErrorCode.STAMP_NOT_HELD, message)


async def preview_on(page, node, number=1):
    """Wait for the image of 16×12 px, then ask for a preview and return its answer."""
    while True:
        node.say()
        message = await page.receive(30)
        if message.type == aiohttp.WSMsgType.BINARY:
            break
    box = {'kind': 'box', 'box': [1, 1, 4, 4], 'stamp': {'sec': 1, 'nanosec': 0}}
    await page.send_json({'type': 'preview', 'request': number, **box})
    return await answer(page)


@pytest.mark.parametrize('size', [(1, 1), (12, 17), (6000, 6000)])
def test_candidates_of_another_size_than_the_image_are_refused(node, size):
    node.success, node.masks, node.qualities = True, [np.ones((12, 16), np.uint8), np.ones(size, np.uint8)], [0.5, 0.4]

    async def ask():
        async with serving(node=node.name) as address, page_of(address) as page:
            refusal = await preview_on(page, node)
            await page.send_json({'type': 'accept', 'request': 2, 'preview': 1, 'candidate': 0})
            return refusal, await answer(page)

    refusal, after = run(ask())
    assert (refusal['ok'], after['ok']) == (False, False)
    assert 'different size' in refusal['text']
    assert 'no longer kept' in after['text']


def test_the_number_and_the_qualities_of_candidates_are_bounded(node):
    node.success, node.message = True, ''
    node.masks = [np.eye(12, 16, k=shift, dtype=np.uint8) for shift in range(50)]
    node.qualities = [float('nan'), 7.0, float('-inf'), *[0.5] * 47]

    async def ask():
        async with serving(node=node.name) as address, page_of(address) as page:
            found = await preview_on(page, node)
            answers = [found]
            for number, candidate in ((1, 2), (1, 3), (9, 0)):
                await page.send_json({'type': 'accept', 'request': 2, 'preview': number, 'candidate': candidate})
                answers.append(await answer(page))
            return answers

    found, *accepted = run(ask())
    assert [item['quality'] for item in found['candidates']] == [None, 1.0, None]
    assert [item['area'] for item in found['candidates']] == [12, 12, 12]
    assert [item['ok'] for item in accepted] == [True, False, False]
    (given,) = [request.seeds[0] for request in node.requests if hasattr(request, 'seeds')]
    assert given.mask.data == image_from_array(node.masks[2] * np.uint8(255), 'mono8', Image).data


def test_as_many_qualities_as_masks_are_required(node):
    node.success, node.masks, node.qualities = True, [np.ones((12, 16), np.uint8)], [0.5, 0.4]
    with XMemClient(node.name, timeout=60) as client, pytest.raises(NodeError, match='2 qualities for 1 masks'):
        client.preview(Box(1, 1, 4, 4))


def test_candidates_of_a_large_image_are_sent_small():
    noise = np.random.default_rng(1).integers(0, 2, (4000, 3000)).astype(bool)
    offer, shown = offer_of(1, 5, [Candidate(noise, 0.5)] * 9, (3000, 4000))
    assert len(json.dumps(shown)) < 2**20
    assert (offer.masks[2].mask() == noise).all()


# --- the page


def test_names_and_errors_are_shown_as_text_on_the_page(node, browser):
    from playwright.sync_api import expect

    process = WebProcess(node.name)
    page = browser.new_page()
    errors, blocked = [], []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('console', lambda message: 'Content Security' in message.text and blocked.append(message.text))
    try:
        page.goto(process.address)

        def shown():
            node.say(tracked(name=MARKUP, score=float('nan')), no_image=MARKUP, image_topic=MARKUP)
            return page.locator('#objects li').count()

        wait_until(shown, 'the object', SLOW_S)
        expect(page.locator('#objects .name')).to_contain_text(MARKUP[:60])
        page.click('#objects .remove')
        expect(page.locator('#toast')).to_contain_text(MARKUP)
        node.state = MARKUP
        expect(page.locator('#notice-title')).to_have_text('The tracker is unknown')
        node.state = 'active'
        node.close()
        expect(page.locator('#notice-title')).to_have_text('Tracker not found')
        assert page.evaluate('window.harmed') is None
        assert page.locator('img[src=x], main script').count() == 0
        # and were there a hole, the policy would keep it shut
        page.evaluate('markup => document.body.insertAdjacentHTML("beforeend", markup)', MARKUP)
        wait_until(lambda: page.evaluate('1') and blocked, 'the policy to speak', SLOW_S)
        assert page.evaluate('window.harmed') is None
        assert errors == []
    finally:
        page.close()
        process.close()


def test_a_browser_signs_in_by_the_address_or_by_hand_and_the_token_leaves_the_address(browser, tmp_path):
    from playwright.sync_api import expect

    file = tmp_path / 'token'
    file.write_text(TOKEN)
    process = WebProcess('/nowhere/xmem', arguments=('--token-file', str(file)))
    asked = []
    try:
        for by_hand in (False, True):
            context = browser.new_context()
            page = context.new_page()
            page.on('request', lambda request: asked.append(request.url))
            if by_hand:
                page.goto(process.address)
                page.fill('#token', 'wrong')
                page.click('button')
                expect(page.locator('#refusal')).to_have_text('Wrong token.')
                page.fill('#token', TOKEN)
                page.click('button')
            else:
                page.goto(f'{process.address}#token={TOKEN}')
            expect(page.locator('#notice-title')).to_have_text('Tracker not found')
            assert TOKEN not in page.url
            assert page.evaluate('document.cookie') == ''  # scripts cannot read it
            assert [cookie['sameSite'] for cookie in context.cookies()] == ['Strict']
            context.close()
        assert not any(TOKEN in url for url in asked if '#' not in url)
        assert 'other users can read' in process.output
    finally:
        process.close()


def test_another_site_in_the_same_browser_gets_nothing(browser):
    process = WebProcess('/nowhere/xmem')
    page = browser.new_page()
    try:
        page.route('http://evil.example/', lambda route: route.fulfill(body='<p>evil', content_type='text/html'))
        page.goto('http://evil.example/')
        told = page.evaluate(
            """async port => {
                const socket = await new Promise(resolve => {
                    const one = new WebSocket(`ws://127.0.0.1:${port}/socket`);
                    one.onopen = () => resolve('open');
                    one.onerror = () => resolve('refused');
                });
                const there = `http://127.0.0.1:${port}/`;
                const get = (path, options) => fetch(there + path, options).then(() => 'read', () => 'refused');
                const read = await get('app.js');
                const signed = await get('signin', { method: 'POST', body: 'x' });
                const frame = document.createElement('iframe');
                frame.src = there;
                document.body.append(frame);
                await new Promise(resolve => { frame.onload = resolve; });
                let inside = null;
                try { inside = frame.contentDocument; } catch { /* no */ }
                return [socket, read, signed, inside];
            }""",
            process.port,
        )
        assert told == ['refused', 'refused', 'refused', None]
    finally:
        page.close()
        process.close()
