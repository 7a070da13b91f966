# SPDX-License-Identifier: MIT
"""Publishing of recorded topics: selection, names, QoS and order."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from xmem_ros.errors import OutputError, ParameterError, Setting, naming
from xmem_ros.recordings import typestore
from xmem_ros.recordings.topics import COMPANION_TYPES, RECORDER_TOPICS, is_ros_topic, recorded_outputs
from xmem_ros.replay.clock import JUMP_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rclpy.node import Node

    from xmem_ros.replay.source import RecordedMessage

# Companions are messages with the stamp of an image: depth images, camera_info.
LOOK_AHEAD_NS = 500_000_000  # bag time in which companions can follow their image
MAX_AHEAD, MAX_AHEAD_BYTES = 5000, 256 * 2**20  # bounds of the messages read ahead
SLOP_NS = 20_000_000  # a companion's stamp is at most this much after its image's
_TYPE = re.compile(r'([a-z][a-z0-9_]*)/(msg|srv|action)/([A-Za-z][A-Za-z0-9_]*)', re.ASCII)
# Interface kind → suffix of a message type → path of its class within the interface's class.
_INNER: dict[str, dict[str, tuple[str, ...]]] = {
    'srv': {'_Event': ('Event',)},
    'action': {
        '_FeedbackMessage': ('Impl', 'FeedbackMessage'),
        '_SendGoal_Event': ('Impl', 'SendGoalService', 'Event'),
        '_GetResult_Event': ('Impl', 'GetResultService', 'Event'),
    },
}
_DEPTH, _LATCHED_DEPTH = 10, 100
_UNKNOWN_DEPTH = 10_000  # recorders write this or more if they do not know the depth
_MAX_DEPTH = 1000  # upper bound of a publisher's depth
ACK_TIMEOUT_S = 10.0  # for a subscriber that blocks a keep-all publisher


def excluded_topics(topics: Mapping[str, str], node: str, *, clock: bool) -> dict[str, str]:
    """Return the recorded topics that are not published, with the reasons.

    Args:
        topics: name → type.
        node: full name of the node.
        clock: whether the replay publishes its own clock.
    """
    reasons = recorded_outputs(topics, node)
    for name in topics:
        if name in reasons:
            continue
        if name in RECORDER_TOPICS:
            reasons[name] = RECORDER_TOPICS[name]
        elif name == '/clock' and clock:
            reasons[name] = 'the replay publishes its own clock'
        elif not is_ros_topic(name):
            reasons[name] = 'its name is not a valid ROS topic'
    return reasons


def foreign_topics(topics: Mapping[str, str]) -> dict[str, str]:
    """Return the topics whose type is not installed → the reason; topics: name → type."""
    return {name: f'{kind} is not installed' for name, kind in topics.items() if message_class(kind) is None}


def message_class(msgtype: str) -> Any:
    """Return the Python class of a message type; None if it is not installed.

    Args:
        msgtype: such as sensor_msgs/msg/Image, nav2_msgs/action/NavigateToPose_FeedbackMessage
            (hidden feedback topic) or std_srvs/srv/SetBool_Event (service events, not in Humble).
    """
    parts = _TYPE.fullmatch(msgtype)
    if parts is None:
        return None
    package, kind, name = parts.groups()
    module = _interfaces(package, kind)
    found = getattr(module, name, None) if kind == 'msg' else None
    for end, path in _INNER.get(kind, {}).items():
        if name.endswith(end):
            found = getattr(module, name[: -len(end)], None)
            for part in path:
                found = getattr(found, part, None)
            break
    return found if _is_message(found) else None


def _interfaces(package: str, kind: str) -> Any:
    """Return the module of a package's interfaces, if it lies in the ament index's prefix.

    The name comes from a bag. Nothing is imported from the working directory or other libraries.
    """
    try:
        prefix = Path(get_package_prefix(package))
        spec = importlib.util.find_spec(package)  # of a top-level package, which imports nothing
    except (PackageNotFoundError, ImportError, ValueError, OSError):
        return None
    loaded = getattr(sys.modules.get(package), '__path__', None)
    places = [Path(place) for place in loaded or getattr(spec, 'submodule_search_locations', None) or ()]
    if loaded is None:
        places = places[:1]  # the folder whose `__init__` would run
    chosen = next((folder for folder in places if (folder / kind).is_dir() or (folder / f'{kind}.py').exists()), None)
    if chosen is None or not chosen.resolve().is_relative_to(prefix.resolve()):
        return None
    try:
        return importlib.import_module(f'{package}.{kind}')
    except ImportError:
        return None


def _is_message(found: Any) -> bool:
    return isinstance(found, type) and hasattr(type(found), '_TYPE_SUPPORT') and hasattr(found, 'SLOT_TYPES')


def publisher_qos(offered: Iterable[Any]) -> QoSProfile:
    """Return QoS for a topic: reliable, to match every subscriber, and latched if recorded so.

    One publisher replaces all recorded ones. Its depth is therefore the sum of the depths of the
    latched ones, such as the broadcasters on /tf_static.

    Args:
        offered: `Qos` (rosbags) of the recorded publishers.
    """
    profiles = list(offered)
    latched = [profile for profile in profiles if profile.durability.name == 'TRANSIENT_LOCAL']
    depths = [profile.depth for profile in profiles if profile.depth < _UNKNOWN_DEPTH]
    latched_depth = sum(profile.depth for profile in latched if profile.depth < _UNKNOWN_DEPTH)
    keep_all = any(profile.history.name == 'KEEP_ALL' for profile in profiles)
    return QoSProfile(
        history=HistoryPolicy.KEEP_ALL if keep_all else HistoryPolicy.KEEP_LAST,
        depth=min(max([_DEPTH, *depths, *([latched_depth, _LATCHED_DEPTH] if latched else [])]), _MAX_DEPTH),
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def parse_remaps(rules: Iterable[str]) -> dict[str, str]:
    """Parse rules FROM:=TO into recorded topic → topic; raises `ParameterError`."""
    remaps = {}
    for rule in rules:
        old, sign, new = rule.partition(':=')
        if not sign or not all(name.startswith('/') and len(name) > 1 for name in (old, new)):
            text = f'{rule} is not a rule; give FROM:=TO, two full topic names, as in /camera/image:=/image'
            raise naming(Setting.REMAP, ParameterError(text))
        remaps[old] = new
    return remaps


class ReplayPublishers:
    """Publishers of the replayed topics.

    Arguments:
        node: owner of the publishers.
        topics: recorded topic → type, of the topics to publish.
        offered: recorded topic → recorded `Qos` (rosbags).
        names: recorded topic → published topic, if it differs.
    """

    def __init__(
        self, node: Node, topics: Mapping[str, str], offered: Mapping[str, Iterable[Any]], names: Mapping[str, str]
    ) -> None:
        self._publishers = {
            topic: node.create_publisher(message_class(kind), names.get(topic, topic), publisher_qos(offered[topic]))
            for topic, kind in topics.items()
        }
        self._valid: dict[str, bool] = {}

    def is_valid(self, message: RecordedMessage) -> bool:
        """Return whether a message matches its topic's installed type.

        Every message is checked if rosbags knows the type, otherwise the topic's first one.
        """
        known = message.msgtype in typestore.typestore().fielddefs
        if known and not _is_decodable(message):  # before the middleware trusts its lengths
            return False
        if message.topic not in self._valid:
            try:
                deserialize_message(message.data, message_class(message.msgtype))
                self._valid[message.topic] = True
            except Exception:  # rclpy has no common base class
                self._valid[message.topic] = False
        return self._valid[message.topic]

    def __getitem__(self, topic: str) -> Any:
        return self._publishers[topic]

    def wait_for_subscribers(self, node: Node, seconds: float) -> None:
        """Wait up to `seconds` [s] until all known subscribers are connected."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            known = {topic: node.count_subscribers(item.topic_name) for topic, item in self._publishers.items()}
            if all(self.subscribers[topic] >= count for topic, count in known.items()):
                return
            time.sleep(0.02)

    @property
    def subscribers(self) -> dict[str, int]:
        """Recorded topic → connected subscribers."""
        return {topic: item.get_subscription_count() for topic, item in self._publishers.items()}

    def flush(self, seconds: float) -> None:
        """Wait up to `seconds` [s] until subscribers have acknowledged the last messages."""
        end = time.monotonic() + seconds
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(end - time.monotonic(), 0.0)))

    def publish(self, message: RecordedMessage) -> None:
        """Publish the bytes of a message.

        Raises:
            OutputError: a subscriber blocks a keep-all topic.
        """
        publisher = self._publishers[message.topic]
        try:
            publisher.publish(message.data)
        except RuntimeError:  # base of the C layer's RCLError, which has no public name
            publisher.wait_for_all_acked(Duration(seconds=ACK_TIMEOUT_S))
            try:
                publisher.publish(message.data)
            except RuntimeError as error:
                text = (
                    f'{publisher.topic_name}: a subscriber does not receive its messages ({error}); stop it, or '
                    f'remap {message.topic} to another topic'
                )
                raise naming(Setting.REMAP, OutputError(text)) from error


def _is_decodable(message: RecordedMessage) -> bool:
    try:
        typestore.deserialize(message.data, message.msgtype)
    except Exception:  # depends on the bytes
        return False
    return True


def companions_first(messages: Iterable[RecordedMessage], image_topic: str) -> Iterator[RecordedMessage]:
    """Reorder a bag: companions of an image (depth, camera_info) come before it.

    In bags they often follow the image, too late for a lock-step replay. They get the image's time,
    unless theirs is earlier; other messages keep their order. The search looks ahead half a second,
    but not beyond a step back of the bag's time.

    Args:
        messages: in the order of the bag.
        image_topic: of the images.
    """
    waiting: deque[RecordedMessage] = deque()
    held = 0  # their total size, bytes
    stream = iter(messages)
    following = next(stream, None)
    while waiting or following is not None:
        while following is not None and _within_reach(following, waiting, held):
            waiting.append(following)
            held += len(following.data)
            following = next(stream, None)
        message = waiting.popleft()
        held -= len(message.data)
        if message.topic == image_topic and message.stamp_ns is not None:
            limit = message.stamp_ns + SLOP_NS
            companions = [item for item in waiting if _is_companion(item, image_topic, limit)]
            for item in companions:
                waiting.remove(item)
                held -= len(item.data)
                # Its time must not be later than the image's, or time would step back.
                yield replace(item, received_ns=min(item.received_ns, message.received_ns))
        yield message


def _within_reach(message: RecordedMessage, waiting: deque[RecordedMessage], held: int) -> bool:
    """Return whether a message may be read ahead beside the waiting ones of `held` bytes."""
    if not waiting:
        return True
    if len(waiting) >= MAX_AHEAD or held + len(message.data) > MAX_AHEAD_BYTES:
        return False
    restarted = message.received_ns < waiting[-1].received_ns - JUMP_NS
    return not restarted and message.received_ns - waiting[0].received_ns <= LOOK_AHEAD_NS


def _is_companion(message: RecordedMessage, image_topic: str, limit_ns: int) -> bool:
    if message.topic == image_topic or message.msgtype not in COMPANION_TYPES:
        return False
    return message.stamp_ns is not None and message.stamp_ns <= limit_ns
