# SPDX-License-Identifier: MIT
"""The worker's queue and thread, and the history, without ROS."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from xmem_ros.stream.frame import Fate, Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.worker import BrokenError, StoppedError, Worker


class Slow:
    """Stand-in for tracking, in which each frame waits until it is released."""

    def __init__(self):
        self.done = []
        self.gate = threading.Semaphore(0)
        self.busy = threading.Event()

    def __call__(self, frame):
        self.busy.set()
        assert self.gate.acquire(timeout=10)
        self.done.append(frame.stamp_ns)
        return frame.stamp_ns >= 0

    def let_through(self, frames=1):
        for _ in range(frames):
            self.gate.release()


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def make(slow):
    workers = []

    def start(**options):
        workers.append(Worker(slow, **options))
        workers[-1].start()
        return workers[-1]

    yield start
    slow.let_through(1000)
    for worker in workers:
        worker.stop()


def settle(worker, waiting=0):
    end = time.monotonic() + 10
    while worker.counts.waiting != waiting:
        assert time.monotonic() < end, worker.counts
        time.sleep(0.002)
    return worker.counts


def test_only_the_newest_frame_waits(make, slow):
    worker = make()
    frames = [Frame(None, stamp) for stamp in range(6)]
    worker.offer(frames[0])
    assert slow.busy.wait(5)
    for frame in frames[1:]:
        worker.offer(frame)
    slow.let_through(6)
    counts = settle(worker)
    assert slow.done == [0, 5]
    assert (counts.received, counts.tracked, counts.dropped) == (6, 2, 4)
    assert [frame.fate for frame in frames] == [Fate.TRACKED, *[Fate.DROPPED] * 4, Fate.TRACKED]


def test_with_keep_all_the_sender_waits_and_nothing_is_dropped(make, slow):
    worker = make(depth=3, keep_all=True)
    offered = []

    def send():
        for stamp in range(10):
            worker.offer(Frame(None, stamp))
            offered.append(stamp)

    sender = threading.Thread(target=send)
    sender.start()
    assert slow.busy.wait(5)
    time.sleep(0.2)
    assert len(offered) <= 3  # one current, two waiting, the third not accepted yet
    slow.let_through(10)
    sender.join(10)
    assert settle(worker).tracked == 10
    assert slow.done == list(range(10))


def test_a_frame_that_cannot_be_tracked_counts_as_dropped(make, slow):
    worker = make()
    slow.let_through()
    worker.offer(Frame(None, -1))
    counts = settle(worker)
    assert (counts.received, counts.tracked, counts.dropped) == (1, 0, 1)


def test_jobs_run_between_frames_in_the_same_thread(make, slow):
    worker = make()
    worker.offer(Frame(None, 0))
    assert slow.busy.wait(5)
    job = worker.submit(lambda: threading.current_thread().name)
    time.sleep(0.05)
    assert not job.done()
    slow.let_through()
    assert job.result(5) == 'xmem-worker'


def test_a_job_for_a_waiting_frame_runs_in_place_of_it(make, slow):
    worker = make(depth=5, keep_all=True)
    frames = [Frame(None, stamp) for stamp in range(3)]
    for frame in frames:
        worker.offer(frame)
    assert slow.busy.wait(5)

    def seed():
        slow.done.append('seed')
        frames[2].fate = Fate.TRACKED
        return 'seeded'

    job = worker.submit(seed, frames[2])
    slow.let_through(3)
    assert job.result(5) == 'seeded'
    assert slow.done == [0, 1, 'seed']
    assert settle(worker).tracked == 3


def test_a_job_for_a_frame_that_was_dropped_meanwhile_still_runs(make, slow):
    worker = make()
    worker.offer(Frame(None, 0))
    assert slow.busy.wait(5)
    dropped = Frame(None, 1)
    worker.offer(dropped)
    job = worker.submit(lambda: dropped.fate, dropped)
    worker.offer(Frame(None, 2))
    slow.let_through(3)
    assert job.result(5) is Fate.DROPPED
    counts = settle(worker)
    assert (counts.tracked, counts.dropped) == (2, 1)


def test_an_error_of_a_job_reaches_its_caller_and_the_worker_continues(make, slow):
    worker = make()
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 // 0).result(5)
    slow.let_through()
    worker.offer(Frame(None, 4))
    assert settle(worker).tracked == 1


def test_stopping_drops_waiting_frames_and_answers_callers(make, slow):
    worker = make(depth=2, keep_all=True)
    worker.offer(Frame(None, 0))
    assert slow.busy.wait(5)
    waits = threading.Thread(target=lambda: [worker.offer(Frame(None, stamp)) for stamp in (1, 2, 3)])
    waits.start()
    job = worker.submit(lambda: None)
    time.sleep(0.05)
    threading.Timer(0.1, slow.let_through).start()
    worker.stop()
    waits.join(5)
    assert not waits.is_alive()
    with pytest.raises(StoppedError):
        job.result(5)
    with pytest.raises(StoppedError):
        worker.submit(lambda: None).result(5)
    counts = worker.counts
    assert counts.received == counts.tracked + counts.dropped
    assert slow.done == [0]


def filled(history, stamps_s, size=(10, 100)):
    for stamp in stamps_s:
        frame = Frame(SimpleNamespace(data=bytes(3 * size[0] * size[1])), int(stamp * 1e9))
        history.add(frame)
        frame.labels = np.zeros(size, np.uint8)  # set when it is tracked
    return tuple(stamp / 1e9 for stamp in history.span_ns())


def test_history_is_limited_by_seconds_bytes_and_frames():
    stamps = [number / 10 for number in range(50)]
    assert filled(History(1000), stamps) == (0.0, 4.9)
    assert filled(History(1000, seconds=2.0), stamps) == (2.9, 4.9)
    # an image has 3000 bytes and, except for the newest, 1000 of labels
    assert filled(History(1000, nbytes=39_000), stamps) == (4.0, 4.9)
    assert filled(History(7, seconds=2.0, nbytes=39_000), stamps) == (4.3, 4.9)
    assert filled(History(1000, nbytes=1), stamps) == (4.9, 4.9)
    assert filled(History(1, seconds=0.1, nbytes=1, least=5), stamps) == (4.5, 4.9)
    # after a jump back, the frames from before it are dropped as new ones arrive
    assert filled(History(1000, seconds=2.0), [100.0, *stamps])[0] == 100.0
    assert filled(History(30, seconds=2.0), [100.0, *stamps]) == (2.9, 4.9)


def test_history_finds_frames_by_stamp_and_drops_the_oldest():
    history = History(3)
    assert history.newest() is None
    assert history.span_ns() is None
    for stamp in (10, 20, 30, 40):
        history.add(Frame(None, stamp))
    assert history.newest().stamp_ns == 40
    assert history.span_ns() == (20, 40)
    assert history.find(10) is None
    assert history.find(30).stamp_ns == 30


def test_a_job_for_a_future_frame_waits_for_it(make, slow):
    worker = make()
    frame = Frame(None, 1)

    def seed():
        frame.fate = Fate.TRACKED
        return 'seeded'

    job = worker.submit(seed, frame)
    time.sleep(0.05)
    assert not job.done()
    worker.offer(frame)
    assert job.result(5) == 'seeded'
    assert settle(worker).tracked == 1


def test_a_failed_thread_answers_every_caller():
    def track(_):
        raise SystemExit('broken')

    told = []
    worker = Worker(track, log=told.append)
    worker.start()
    job = worker.submit(lambda: None, Frame(None, 9))
    worker.offer(Frame(None, 1))
    with pytest.raises(BrokenError, match='SystemExit: broken'):
        job.result(5)
    with pytest.raises(BrokenError):
        worker.submit(lambda: None).result(5)
    worker.stop()
    assert told
    assert worker.counts.dropped == 1


def test_an_invalid_frame_is_counted_and_not_kept(make):
    kept = []
    worker = make(keep=kept.append)
    worker.offer(Frame(None, -1, valid=False))
    counts = worker.counts
    assert (counts.received, counts.dropped, counts.invalid, kept) == (1, 1, 1, [])


def test_held_frames_outlive_the_history_and_the_earliest_request_is_released_first(monkeypatch):
    history = History(2, held=2)
    for stamp in range(1, 5):
        history.add(Frame(None, stamp))
        assert history.hold(stamp)
    history.add(Frame(None, 5))
    assert [bool(history.find(stamp)) for stamp in range(1, 6)] == [False, False, True, True, True]
    assert history.hold(3)  # requested again: now 4 is released first
    history.add(Frame(None, 6))
    assert history.hold(6)
    history.add(Frame(None, 7))
    assert [bool(history.find(stamp)) for stamp in range(3, 8)] == [True, False, False, True, True]
    assert not history.hold(4)
    assert history.span_ns() == (6, 7)
    now = time.monotonic()
    monkeypatch.setattr(time, 'monotonic', lambda: now + 601)
    history.add(Frame(None, 8))
    history.add(Frame(None, 9))
    assert [bool(history.find(stamp)) for stamp in (3, 6, 8, 9)] == [False, False, True, True]


def test_a_history_without_held_frames_refuses_to_hold():
    history = History(2)
    history.add(Frame(None, 1))
    assert not history.hold(1)


@pytest.mark.parametrize('name', ['frame_id', 'encoding', 'format'])
def test_header_texts_count_towards_the_size_of_the_history(name):
    """An image of a few bytes can have a frame_id of a hundred megabytes."""
    history = History(1000, nbytes=39_000)
    for stamp in range(10):
        text = {name: 'x' * 10_000}
        message = SimpleNamespace(data=b'', header=SimpleNamespace(frame_id=text.pop('frame_id', '')), **text)
        history.add(Frame(message, stamp))
    assert history.span_ns() == (7, 9)
