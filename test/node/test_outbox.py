# SPDX-License-Identifier: MIT
"""Publishing in a thread of its own. A job that blocks stands for a frozen reliable subscriber."""

import threading

import pytest
from needs import require

require('rclpy')

from node_harness import wait_until

from xmem_ros.node.outbox import MOST_FRAMES, Outbox


@pytest.fixture
def said():
    return []


@pytest.fixture
def outbox(said):
    outbox = Outbox(said.append)
    yield outbox
    outbox.close()


def test_a_publisher_that_blocks_holds_up_nobody_and_the_newest_results_are_published(outbox):
    freed, done = threading.Event(), []
    outbox.put(freed.wait)
    for number in range(100):  # returns although nothing is published
        outbox.put(lambda number=number: done.append(number), frame=True)
    freed.set()
    outbox.flush(30)
    kept = done[-MOST_FRAMES:]
    assert kept == list(range(100 - MOST_FRAMES, 100))
    assert outbox.dropped + len(done) == 100


def test_events_are_published_however_many_results_are_dropped(outbox):
    freed, done = threading.Event(), []
    outbox.put(freed.wait)
    for number in range(50):
        outbox.put(lambda number=number: done.append(('event', number)))
        outbox.put(lambda number=number: done.append(('frame', number)), frame=True)
    freed.set()
    outbox.flush(30)
    assert [number for kind, number in done if kind == 'event'] == list(range(50))
    frames = [number for kind, number in done if kind == 'frame']
    assert frames == list(range(50 - MOST_FRAMES, 50))
    assert done.index(('event', 49)) < done.index(('frame', 49))


def test_every_result_is_published_where_all_images_are_tracked(said):
    outbox, freed, done, offered = Outbox(said.append, keep_all=True), threading.Event(), [], []
    outbox.put(freed.wait)

    def offer():
        for number in range(3 * MOST_FRAMES):
            outbox.put(lambda number=number: done.append(number), frame=True)
            offered.append(number)

    thread = threading.Thread(target=offer)
    thread.start()
    wait_until(lambda: len(offered) == MOST_FRAMES, 'the room to be taken')
    freed.set()
    thread.join(30)
    outbox.close(30)
    assert done == list(range(3 * MOST_FRAMES))


def test_an_error_is_logged_and_ends_nothing(outbox, said):
    done = []
    outbox.put(lambda: 1 / 0)
    outbox.put(lambda: done.append(1))
    wait_until(lambda: done, 'the next job')
    assert 'ZeroDivisionError' in said[0]


def test_closing_does_not_wait_for_a_publisher_that_blocks(said):
    outbox, freed = Outbox(said.append), threading.Event()
    outbox.put(freed.wait)
    outbox.close(0.1)
    freed.set()
    outbox.flush(0.0)


def test_closing_drops_results_that_wait_but_no_event(said):
    outbox, freed, done = Outbox(said.append), threading.Event(), []
    outbox.put(freed.wait)
    outbox.put(lambda: done.append('frame'), frame=True)
    outbox.put(lambda: done.append('event'))
    outbox.close(0.1)
    freed.set()
    wait_until(lambda: done, 'the event')
    assert done == ['event']
