# SPDX-License-Identifier: MIT
"""Harness of the page in a real browser: a camera, and actions of a person."""

from __future__ import annotations

import shutil
import threading

import numpy as np
from node_harness import wait_until
from playwright.sync_api import expect
from scene_files import rendered_scene
from web_harness import SLOW_S

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
SCENE = rendered_scene()
HEIGHT, WIDTH = SCENE.size
MUG = (183, 113, 78, 78)  # x, y, width, height, README.md
DESKTOP, PHONE = (1280, 800), (390, 844)
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking']
FLAGS += ['--disable-component-update', '--disable-sync']

expect.set_options(timeout=SLOW_S * 1000)


class Camera:
    """Camera thread that repeats the first frame of the scene with new stamps."""

    def __init__(self, robot):
        self._robot, self._end = robot, threading.Event()
        self.pause = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._end.wait(0.15):
            if not self.pause.is_set():
                self._robot.show(SCENE[0][0])

    def close(self):
        self._end.set()
        self._thread.join()


def spot(page, x, y):
    """Return the screen position of a pixel of the image."""
    frame = page.locator('#draft').bounding_box()
    return frame['x'] + x / WIDTH * frame['width'], frame['y'] + y / HEIGHT * frame['height']


def drag(page, *places):
    page.mouse.move(*spot(page, *places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*spot(page, *place), steps=3)
    page.mouse.up()


def draw_box(page, x, y, width, height):
    drag(page, (x, y), (x + width, y + height))


def stamp_shown(page):
    """Return the stamp of the image on the screen, as text."""
    return page.locator('#stage').get_attribute('data-stamp')


def stamp_text(header):
    return f'{header.stamp.sec}.{header.stamp.nanosec:09d}'


def shown_candidate(page):
    """Wait for a candidate of the newest drawing; return its mask, H×W bool."""
    expect(page.locator('#preview-text')).to_contain_text('takes the mask that is shown')
    height, width, inside = page.evaluate(
        """() => {
            const { width, height } = preview.candidate.mask;
            const { data } = preview.candidate.mask.getContext('2d').getImageData(0, 0, width, height);
            return [height, width, [...data.filter((_, index) => index % 4 === 3)]];
        }"""
    )
    return np.array(inside, bool).reshape(height, width)


def drawn_at(page, x, y):
    """Return red, green, blue and alpha of the drawing at a pixel of the image."""
    return page.evaluate(
        """([x, y]) => {
            const canvas = document.getElementById('draft'), scale = canvas.width / drawing.width;
            return [...canvas.getContext('2d').getImageData((x + .5) * scale, (y + .5) * scale, 1, 1).data];
        }""",
        [x, y],
    )


def seed(page, robot, name=''):
    """Press the button; returns the accepted seeds that the node publishes."""
    before = len(robot.seeds)
    if name:
        page.fill('#name', name)
    page.click('#seed')
    refusal = page.locator('#refusal')
    wait_until(lambda: robot.seeds[before:] or refusal.is_visible(), 'the accepted seed', SLOW_S)
    assert robot.seeds[before:], refusal.text_content()
    accepted = robot.seeds[before]
    expect(page.locator('#cancel')).to_be_hidden()  # live again
    return accepted


def opened_page(stack, browser, address, errors, *, size=DESKTOP, touch=False, live=True):
    """Open the page until the stack is left; collects the errors of its scripts."""
    context = browser.new_context(viewport={'width': size[0], 'height': size[1]}, has_touch=touch, is_mobile=touch)
    stack.callback(context.close)
    context.set_default_timeout(SLOW_S * 1000)
    page = context.new_page()
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(address)
    if live:
        expect(page.locator('#state')).to_have_text('live')
    return page
