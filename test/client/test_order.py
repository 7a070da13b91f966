# SPDX-License-Identifier: MIT
"""Order of messages: which frames the client treats as outdated, with a scripted node."""

import threading
import time

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import rclpy
from lifecycle_msgs.srv import GetState
from node_harness import wait_until
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image

from xmem_ros.client import Box, XMemClient
from xmem_ros.conversions.images import image_from_array
from xmem_ros.errors import ErrorCode, NodeError, NodeMissingError, NodeTimeoutError, SeedError
from xmem_ros.msg import TrackedObject, TrackedObjectArray
from xmem_ros.node import qos
from xmem_ros.srv import LoadMemory, ResetTracker, SeedObjects

ANSWER_S = 60.0  # on a busy machine
BEFORE = 8  # results published just before a response; below the depth of the topics, so none is lost
SLOW_S = 0.03  # time that a slow client takes for one of the two messages of an image


class Speaker:
    """Scripted node whose services publish results of some images before they respond."""

    def __init__(self) -> None:
        self.before = 0
        self.refuses = False
        self.stamp = 0
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('xmem', namespace='/speaker', context=self.context)
        self.labels = self.node.create_publisher(Image, '~/labels', qos.output())
        self.objects = self.node.create_publisher(TrackedObjectArray, '~/objects', qos.output())
        for kind, name in ((ResetTracker, 'reset'), (SeedObjects, 'seed'), (LoadMemory, 'load_memory')):
            self.node.create_service(kind, f'~/{name}', self.answer)
        self.node.create_service(GetState, '~/get_state', self.state)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.spin, daemon=True)
        self.thread.start()

    def spin(self):
        try:
            while self.context.ok():
                self.executor.spin_once()
        except ExternalShutdownException:
            pass

    def close(self):
        self.context.try_shutdown()
        self.thread.join(ANSWER_S)
        self.executor.shutdown()
        self.node.destroy_node()

    def say(self):
        """Publish a result in which object 1 is visible; returns its stamp [ns]."""
        self.stamp += 1
        labels = image_from_array(np.ones((8, 8), np.uint8), 'mono8', Image)
        labels.header.stamp.sec = self.stamp
        item = TrackedObject(id=1, label=1, name='it', state=TrackedObject.TRACKED, area=64)
        item.box.width = item.box.height = 8
        self.labels.publish(labels)
        self.objects.publish(TrackedObjectArray(header=labels.header, objects=[item]))
        return self.stamp * 1_000_000_000

    def answer(self, _, response):
        for _ in range(self.before):
            self.say()
        response.success = not self.refuses
        response.error_code = ErrorCode.INVALID_SEED if self.refuses else ErrorCode.NONE
        if isinstance(response, SeedObjects.Response):
            response.ids = [1]
        return response

    def state(self, _, response):
        response.current_state.label = 'active'
        return response


@pytest.fixture(scope='module')
def speaker():
    speaker = Speaker()
    yield speaker
    speaker.close()


@pytest.fixture
def client(speaker):
    speaker.before, speaker.refuses = 0, False
    with XMemClient('/speaker/xmem', timeout=ANSWER_S) as client:

        def heard():
            stamp = speaker.say()
            end = time.monotonic() + 0.2
            while not (frame := client.latest()) and time.monotonic() < end:
                time.sleep(0.01)
            return frame and frame.stamp_ns == stamp

        wait_until(heard, 'the client to hear the node', ANSWER_S)
        client.wait()
        yield client


@pytest.fixture
def slow(monkeypatch):
    """Make the client process its messages slowly."""
    hear = XMemClient._receive

    def late(*given):
        time.sleep(SLOW_S)
        hear(*given)

    monkeypatch.setattr(XMemClient, '_receive', late)


def newest(client, speaker):
    """Publish a new image and wait until the client has it; returns its stamp [ns]."""
    stamp = speaker.say()
    wait_until(lambda: client.latest() and client.latest().stamp_ns == stamp, 'the newest image', ANSWER_S)
    return stamp


@pytest.mark.parametrize('call', [lambda client: client.reset(), lambda client: client.load_memory('kitchen')])
def test_frames_from_before_a_response_are_dropped_however_late_they_are_read(speaker, client, slow, call):
    speaker.before = BEFORE
    call(client)
    assert client.latest() is None
    stamp = speaker.say()
    assert client.wait_tracked(1).stamp_ns == stamp


def test_half_received_frames_are_discarded_at_a_reset(speaker, client):
    speaker.stamp += 1
    labels = image_from_array(np.ones((8, 8), np.uint8), 'mono8', Image)
    labels.header.stamp.sec = speaker.stamp
    speaker.labels.publish(labels)
    wait_until(lambda: client._pairs._pending, 'the half')
    client.reset()
    count = client._count
    speaker.objects.publish(TrackedObjectArray(header=labels.header))
    newest(client, speaker)  # was sent after that half
    assert client._count == count + 1


def test_wait_tracked_returns_no_image_from_before_the_response_to_a_seed(speaker, client, slow):
    speaker.before = BEFORE
    client.seed({1: Box(0, 0, 8, 8)})
    with pytest.raises(NodeTimeoutError, match='object 1 is TRACKED; .* published no new frame'):
        client.wait_tracked(1, timeout=2 * SLOW_S)
    stamp = speaker.say()
    assert client.wait_tracked(1).stamp_ns == stamp


def test_wait_returns_an_unread_image_from_before_a_seed(speaker, client):
    stamp = newest(client, speaker)
    client.seed({'it': Box(0, 0, 8, 8)})
    assert client.wait(timeout=0).stamp_ns == stamp


def test_a_refused_seed_outdates_no_image(speaker, client):
    stamp = newest(client, speaker)
    speaker.refuses = True
    with pytest.raises(SeedError):
        client.seed({'it': Box(0, 0, 8, 8)})
    assert client.wait_tracked(1, timeout=0).stamp_ns == stamp


def test_wait_tracked_times_out_in_a_loop_when_the_camera_stops(speaker, client):
    stamp = newest(client, speaker)
    assert client.wait_tracked(1).stamp_ns == stamp
    with pytest.raises(NodeTimeoutError):
        client.wait_tracked(1, timeout=0.05)


@pytest.mark.parametrize('gone', [False, True], ids=['silent', 'missing'])
def test_timeouts_hold_to_50_ms_with_the_node_dead(speaker, gone):
    """The best of some attempts, as other programs may delay any one of them."""
    name = '/nowhere/xmem' if gone else '/speaker/xmem'
    with XMemClient(name, timeout=ANSWER_S) as client:
        if not gone:
            client.link.check_there()
            speaker.executor.shutdown()  # it is in the graph and answers nothing
            speaker.thread.join(ANSWER_S)
        for ask in (client.wait, lambda timeout: client.wait_tracked(1, timeout), client.latest, client.reset):
            if ask == client.latest and not gone:
                continue
            late = []
            for _ in range(5):
                begun = time.monotonic()
                with pytest.raises(NodeMissingError if gone else NodeTimeoutError):
                    ask(timeout=0.3)
                late.append(time.monotonic() - begun - 0.3)
            assert -0.01 < min(late) < 0.05


# --- closing


@pytest.mark.parametrize('whole', [True, False], ids=['after closing', 'while it closes'])
def test_closing_the_client_during_a_call_raises_an_error(whole):
    client = XMemClient('/nowhere/xmem', timeout=ANSWER_S)
    link = client.link
    service = link._client(ResetTracker, 'reset')
    ready, rest = service.service_is_ready, []

    def closing():
        if whole:
            link.close()
        elif not rest:  # as far as closing has come when its context ends
            rest.append(link._end.detach())
            link._context.try_shutdown()
        return ready()

    service.service_is_ready = closing
    with pytest.raises(NodeError, match='closed: create a new client'):
        client.reset()
    for ask in (client.latest, lambda: client.hold(5), link.others, link.is_there):
        with pytest.raises(NodeError, match='closed: create a new client'):
            ask()
    for _, close, arguments, _ in rest:
        close(*arguments)
