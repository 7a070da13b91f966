# SPDX-License-Identifier: MIT
"""A bag recorded from the live node, tracked and replayed again: seeds, removals, resets, loads."""

from __future__ import annotations

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

import bag_files
import node_harness as robots
from bag_files import TOPIC, write_bag
from node_harness import bounding_box, box_seed, mask_seed, wait_until
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from xmem_ros.cli.main import main
from xmem_ros.conversions.images import stamp_ns
from xmem_ros.msg import Seed, TrackedObjectArray, TrackingEvent
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import open_recording
from xmem_ros.replay.lockstep import replay

SIZE = 64
FRAMES = bag_files.scene(14, objects=3)
TRUTH = [labels for _, labels in FRAMES]
PATIENCE_S = 60.0  # time limit on a busy machine


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    memory = tmp_path_factory.mktemp('memory')
    with robots.running(
        {'device': 'cpu', 'size': SIZE, 'diagnostics_period': 0.2, 'memory_folder': str(memory)}
    ) as robot:
        robot.memory, robot.stamp_ns = memory, 10**12
        robot.labels = robot.listen(Image, '~/labels')
        robot.objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.events = robot.listen(TrackingEvent, '~/events', robots.LATCHED)
        for topic in ('~/labels', '~/objects', '~/events'):
            robot.wait_matched(topic)
        yield robot


class Recorder:
    """Records images and events in the order in which the node takes them."""

    def __init__(self, robot):
        self.robot, self.items, self.ids = robot, [], {}  # ids: stamp [ns] → ids in the node's results
        robot.reset()
        wait_until(
            lambda: robot.events and robot.events[-1].kind in (TrackingEvent.START, TrackingEvent.RESET), 'the reset'
        )
        self.recorded = len(robot.events) - 1

    def show(self, index):
        """Show a frame; record it and the node's objects in it."""
        self.flush()
        labels = self.robot.show_and_wait(FRAMES[index][0], self.robot.labels)
        wait_until(lambda: self.robot.objects[-1].header == labels.header, 'its objects')
        sent = bag_files.image_message(index, FRAMES[index][0])
        stamp = labels.header.stamp
        sent.header.stamp.sec, sent.header.stamp.nanosec = stamp.sec, stamp.nanosec
        self.items.append((TOPIC, sent))
        self.ids[stamp.sec * 10**9 + stamp.nanosec] = [item.id for item in self.robot.objects[-1].objects]
        return labels.header.stamp

    def change(self, request, *arguments, **options):
        """Call a service; wait for its event."""
        before = len(self.robot.events)
        answer = request(*arguments, **options)
        assert answer.success, answer.message
        wait_until(lambda: len(self.robot.events) > before, 'the event')
        return self.robot.events[-1]

    def flush(self):
        for message in self.robot.events[self.recorded :]:
            self.items.append(('/xmem/events', ('xmem_ros/msg/TrackingEvent', serialize_message(message))))
        self.recorded = len(self.robot.events)

    def bag(self, path):
        """Write what was recorded; each message a millisecond after the one before."""
        self.flush()
        begun = 1_700_000_000_000_000_000
        return write_bag(path, [(topic, begun + n * 10**6, item) for n, (topic, item) in enumerate(self.items)])


def tracked_again(bag, out, *arguments):
    """Track a bag with its own events; return stamp [ns] → ids."""
    command = ['track', bag, '--out', out, '--format', 'bag', '--size', SIZE, '--device', 'cpu', *arguments]
    assert main([*map(str, command)]) == 0
    with open_recording(out / 'bag', TOPIC) as recording:
        wanted = [c for c in recording.bag.connections if c.topic == '/xmem/objects']
        found = [typestore.deserialize(raw, typestore.OBJECTS) for _, _, raw in recording.raw(wanted)]
    return {stamp_ns(one.header.stamp): [int(item.id) for item in one.objects] for one in found}


def replayed_again(robot, bag):
    """Replay a bag into the node; return stamp [ns] → ids of the recorded node, and the report."""
    with replay(bag, robot.prefix, timeout=PATIENCE_S) as frames:
        found = {f.stamp_ns: sorted(f.plan_ids.get(item.id, 0) for item in f.objects) for f in frames}
        return found, frames.report


def test_a_bag_gives_the_same_objects_again_after_removals_and_a_reset(robot, tmp_path):
    recorder = Recorder(robot)
    recorder.show(0)
    recorder.change(robot.seed, mask_seed(TRUTH[0], kind=Seed.LABELS))  # 1, 2, 3
    second = recorder.show(1)
    recorder.show(2)
    recorder.change(robot.remove, 2)
    recorder.show(3)
    # late, for an image in which object 2 was still there; and a correction
    recorder.change(robot.seed, mask_seed(TRUTH[1] == 2, 'again'), mask_seed(TRUTH[1] == 1, object_id=1), stamp=second)
    recorder.show(4)
    recorder.change(robot.remove, everything=True)
    recorder.show(5)
    recorder.show(6)
    recorder.change(robot.seed, box_seed(*bounding_box(TRUTH[6] == 3, 2), 'box'))  # 5
    recorder.show(7)
    last = recorder.show(8)
    reset = recorder.change(robot.reset)
    recorder.show(9)
    recorder.change(robot.seed, mask_seed(TRUTH[8] == 1, 'anew'), stamp=last)  # 1 of the next session
    recorder.show(10)
    recorder.show(11)
    live = recorder.ids
    assert list(live.values()) == [[], [1, 2, 3], [1, 2, 3], [1, 3], [1, 3, 4], [], [], [5], [5], [], [1], [1]]
    assert (reset.kind, list(reset.ids)) == (TrackingEvent.RESET, [5])
    bag = recorder.bag(tmp_path / 'drive')

    # A node shows an object after its seed was accepted, a run offline from the seed's image on.
    # The last object is seeded in image 8, so everything is forgotten before that image.
    again = list(tracked_again(bag, tmp_path / 'out', '--seed', 'recorded').values())
    assert again == [[1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4], [1, 3, 4], [1, 3, 4], [], [5], [5], [1], [1], [1], [1]]
    found, report = replayed_again(robot, bag)
    assert list(found.values())[-3:] == [[1], [1], [1]]
    assert list(found.values())[3:9] == [[1, 3, 4], [1, 3, 4], [], [], [5], []]
    assert report.missed == []


def test_a_loaded_memory_file_is_loaded_again_if_it_is_there(robot, tmp_path, capsys):
    recorder = Recorder(robot)
    recorder.show(0)
    recorder.change(robot.seed, mask_seed(TRUTH[0], kind=Seed.LABELS))
    recorder.show(1)
    recorder.change(robot.remove, 1)
    recorder.show(2)
    assert robot.save_memory('two').success
    recorder.change(robot.reset)
    recorder.show(3)
    loaded = recorder.change(robot.load_memory, 'two')
    assert (loaded.kind, list(loaded.ids), loaded.file) == (TrackingEvent.LOAD, [2, 3], 'two.safetensors')
    recorder.show(4)
    recorder.change(robot.remove, 3)
    recorder.show(5)
    live = recorder.ids
    assert list(live.values()) == [[], [1, 2, 3], [2, 3], [], [2, 3], [2]]
    bag = recorder.bag(tmp_path / 'drive')
    options = tmp_path / 'node.yaml'
    options.write_text(f'xmem:\n  ros__parameters:\n    memory_folder: {robot.memory}\n')
    again = tracked_again(bag, tmp_path / 'out', '--params', options)
    assert list(again.values())[1:] == list(live.values())[1:]
    found, report = replayed_again(robot, bag)
    assert (list(found.values()), report.missed) == (list(live.values()), [])

    other = tmp_path / 'other'
    other.mkdir()
    options.write_text(f'xmem:\n  ros__parameters:\n    memory_folder: {other}\n')
    capsys.readouterr()
    again = tracked_again(bag, tmp_path / 'without', '--params', options)
    assert list(again.values())[1:] == [[1, 2, 3], [2, 3], [], [], []]
    assert 'two.safetensors' in capsys.readouterr().err


def test_a_reset_because_stamps_jumped_back_is_recorded(robot, tmp_path):
    robot.set_parameter('on_time_jump', 'reset')
    try:
        recorder = Recorder(robot)
        recorder.show(0)
        recorder.change(robot.seed, mask_seed(TRUTH[0] == 1))
        recorder.show(1)
        before = len(robot.events)
        robot.stamp_ns -= 10**10
        recorder.show(2)
        wait_until(lambda: len(robot.events) > before, 'the reset')
        assert [robot.events[-1].kind, robot.events[-1].session] == [TrackingEvent.RESET, robot.events[-2].session + 1]
    finally:
        robot.set_parameter('on_time_jump', 'keep')


def test_every_configuration_begins_a_session_without_objects(robot):
    recorder = Recorder(robot)
    recorder.show(0)
    recorder.change(robot.seed, mask_seed(TRUTH[0] == 1))
    session = robot.events[-1].session
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert robot.change_state(transition)
    wait_until(lambda: robot.events[-1].session == session + 1, 'the start')
    assert (robot.events[-1].kind, robot.events[-1].sequence) == (TrackingEvent.START, 0)
    robot.wait_camera()


def test_events_with_masks_are_small_and_few_are_kept(robot):
    """100 raw masks of 1280×720 px took 92 MB in the middleware."""
    large = np.kron(TRUTH[0], np.ones((12, 12), np.uint8))[:720, :1280]
    frame = np.kron(FRAMES[0][0], np.ones((12, 12, 1), np.uint8))[:720, :1280]
    robot.show_and_wait(frame, robot.labels)
    assert robot.seed(mask_seed(large == 1)).success
    wanted = [item for item in robot.events if item.kind == TrackingEvent.SEED][-1].ids[0]
    for _ in range(40):
        assert robot.seed(mask_seed(large == 1, object_id=wanted)).success
    late = robots.Robot(robot.namespace)
    try:
        heard = late.listen(TrackingEvent, '~/events', robots.LATCHED)
        wait_until(lambda: len(heard) >= 32, 'the kept events')
        kept = sum(len(serialize_message(message)) for message in heard)
        assert len(heard) == 32
        assert kept < 1e6
    finally:
        late.close()
    values = robot.diagnostics(lambda values: int(values.get(keys.EVENTS_BYTES, 0)) >= kept, 'the kept events')
    assert int(values[keys.EVENTS_BYTES]) < 2 * kept
