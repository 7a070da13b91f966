# SPDX-License-Identifier: MIT
"""Fixtures of the page: the real node, its server and a real browser. Imports wait until needed."""

import contextlib

import pytest


@pytest.fixture(scope='module')
def robot(request):
    """A node that makes masks by GrabCut, with a camera.

    It keeps as many images as the test's module says in `HISTORY`.
    """
    import node_harness as robots
    from page_harness import Camera
    from sensor_msgs.msg import Image

    from xmem_ros.msg import TrackedObjectArray

    parameters = {'size': 120, 'diagnostics_period': 0.5, 'no_image_warning_after': 1.0, 'seeder': 'grabcut'}
    with robots.running({**parameters, 'history': request.module.HISTORY, 'history_seconds': 0.0}) as robot:
        robot.labels = robot.listen(Image, '~/labels')
        robot.objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.seeds = robot.listen_seeds()
        robot.wait_matched('~/events')
        robot.camera = Camera(robot)
        try:
            yield robot
        finally:
            robot.camera.close()


@pytest.fixture(scope='module')
def web(robot):
    """The server of the page."""
    from web_harness import WebProcess

    process = WebProcess(robot.prefix)
    yield process
    process.close()


@pytest.fixture(scope='module')
def browser():
    """Chromium, without a window."""
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: pip install .[dev]')
    from page_harness import CHROMIUM, FLAGS

    if CHROMIUM is None:
        pytest.skip('there is no Chromium on this machine: apt install chromium')
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, web, robot):
    """Open the page at a size; an error in its scripts fails the test."""
    from page_harness import DESKTOP, opened_page

    errors = []
    with contextlib.ExitStack() as stack:

        def start(size=DESKTOP, touch=False, live=True):
            return opened_page(stack, browser, web.address, errors, size=size, touch=touch, live=live)

        robot.reset()
        yield start
        robot.reset()
    assert errors == []
