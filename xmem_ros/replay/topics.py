# SPDX-License-Identifier: MIT
"""What of a bag goes back into the graph: which topics, under which names, with which QoS, in which order."""

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
from rclpy._rclpy_pybind11 import RCLError
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from xmem_ros.errors import OutputError, ParameterError
from xmem_ros.recordings import typestore
from xmem_ros.recordings.topics import COMPANIONS, OF_THE_RECORDING, is_ros_topic, recorded_outputs
from xmem_ros.replay.clock import JUMP_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rclpy.node import Node

    from xmem_ros.replay.source import LiveMessage

LOOK_AHEAD_NS = 500_000_000  # of the bag's time, in which what belongs to an image comes after it
MOST_AHEAD, MOST_AHEAD_BYTES = 5000, 256 * 2**20  # messages and their bytes that are held for that, at most
SLOP_NS = 20_000_000  # a companion belongs to an image whose stamp is at most this much before its own
_TYPE = re.compile(r'([a-z][a-z0-9_]*)/(msg|srv|action)/([A-Za-z][A-Za-z0-9_]*)', re.ASCII)
# Kind of interface → end of a message type's name → where its class lies within that of the interface.
_INNER: dict[str, dict[str, tuple[str, ...]]] = {
    'srv': {'_Event': ('Event',)},
    'action': {
        '_FeedbackMessage': ('Impl', 'FeedbackMessage'),
        '_SendGoal_Event': ('Impl', 'SendGoalService', 'Event'),
        '_GetResult_Event': ('Impl', 'GetResultService', 'Event'),
    },
}
_DEPTH, _LATCHED_DEPTH = 10, 100
_UNREAL_DEPTH = 10_000  # that a recorder says for one it does not know
_MOST_DEPTH = 1000  # messages that a publisher keeps, whatever the bag says
SLOW_S = 10.0  # for a listener that has asked for every message and does not take them


def left_out(topics: Mapping[str, str], node: str, *, clock: bool) -> dict[str, str]:
    """Topics that are not to be published, and why.

    Args:
        topics: name → type.
        node: full name.
        clock: whether the replay publishes a clock of its own.
    """
    reasons = recorded_outputs(topics, node)
    for name, msgtype in topics.items():
        if name in reasons:
            continue
        if name in OF_THE_RECORDING:
            reasons[name] = OF_THE_RECORDING[name]
        elif name == '/clock' and clock:
            reasons[name] = 'the replay has a clock of its own'
        elif not is_ros_topic(name):
            reasons[name] = 'ROS allows no topic of that name'
        elif message_class(msgtype) is None:
            reasons[name] = f'{msgtype} is not installed'
    return reasons


def message_class(msgtype: str) -> Any:
    """The Python class of a message type; None where it is not installed.

    Args:
        msgtype: such as sensor_msgs/msg/Image, nav2_msgs/action/NavigateToPose_FeedbackMessage (of an action's hidden
            topic of feedback) or std_srvs/srv/SetBool_Event (of a service's events, which Humble does not have).
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
    """The module of a package's interfaces; None unless the ament index lists the package and Python has it from there.

    The name comes from a bag. So nothing is imported from the working directory or from other libraries.
    """
    try:
        prefix = Path(get_package_prefix(package))
        spec = importlib.util.find_spec(package)  # of the package itself, which imports nothing
    except (PackageNotFoundError, ImportError, ValueError, OSError):
        return None
    loaded = getattr(sys.modules.get(package), '__path__', None)
    places = [Path(place) for place in loaded or getattr(spec, 'submodule_search_locations', None) or ()]
    if loaded is None:
        places = places[:1]  # that is where its `__init__` would be run
    taken = next((folder for folder in places if (folder / kind).is_dir() or (folder / f'{kind}.py').exists()), None)
    if taken is None or not taken.resolve().is_relative_to(prefix.resolve()):
        return None
    try:
        return importlib.import_module(f'{package}.{kind}')
    except ImportError:
        return None


def _is_message(found: Any) -> bool:
    return isinstance(found, type) and hasattr(type(found), '_TYPE_SUPPORT') and hasattr(found, 'SLOT_TYPES')


def publisher_qos(offered: Iterable[Any]) -> QoSProfile:
    """Reliable, which subscribers of both kinds match, and latched where it was so in the recording.

    One publisher stands for all that were recorded. So what each of them kept for those who come later it keeps in sum,
    as the transforms of many broadcasters on /tf_static.

    Args:
        offered: `Qos` of rosbags, of the recorded publishers.
    """
    profiles = list(offered)
    latched = [profile for profile in profiles if profile.durability.name == 'TRANSIENT_LOCAL']
    depths = [profile.depth for profile in profiles if profile.depth < _UNREAL_DEPTH]
    kept = sum(profile.depth for profile in latched if profile.depth < _UNREAL_DEPTH)
    whole = any(profile.history.name == 'KEEP_ALL' for profile in profiles)
    return QoSProfile(
        history=HistoryPolicy.KEEP_ALL if whole else HistoryPolicy.KEEP_LAST,
        depth=min(max([_DEPTH, *depths, *([kept, _LATCHED_DEPTH] if latched else [])]), _MOST_DEPTH),
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def parse_remaps(rules: Iterable[str]) -> dict[str, str]:
    """Recorded topic → topic, of rules FROM:=TO; raises `ParameterError`."""
    remaps = {}
    for rule in rules:
        old, sign, new = rule.partition(':=')
        if not sign or not all(name.startswith('/') and len(name) > 1 for name in (old, new)):
            raise ParameterError(f'--remap {rule}: give FROM:=TO, two full names of topics, as /camera/image:=/image')
        remaps[old] = new
    return remaps


class Topics:
    """Publishers of what is replayed.

    Arguments:
        node: that publishes.
        topics: recorded topic → type, of those that are to be published.
        offered: recorded topic → QoS that it was published with, of rosbags.
        names: recorded topic → topic, where it is another.
    """

    def __init__(
        self, node: Node, topics: Mapping[str, str], offered: Mapping[str, Iterable[Any]], names: Mapping[str, str]
    ) -> None:
        self._publishers = {
            topic: node.create_publisher(message_class(kind), names.get(topic, topic), publisher_qos(offered[topic]))
            for topic, kind in topics.items()
        }
        self._fits: dict[str, bool] = {}

    def fits(self, message: LiveMessage) -> bool:
        """Whether a message is of its topic's type as it is installed here.

        Of types that rosbags knows, every message is looked at; of others the topic's first one.
        """
        known = message.msgtype in typestore.typestore().fielddefs
        if known and not _is_whole(message):  # before a middleware trusts the lengths that it says
            return False
        if message.topic not in self._fits:
            try:
                deserialize_message(message.data, message_class(message.msgtype))
                self._fits[message.topic] = True
            except Exception:  # rclpy has no common base for what bytes can do
                self._fits[message.topic] = False
        return self._fits[message.topic]

    def __getitem__(self, topic: str) -> Any:
        return self._publishers[topic]

    def meet(self, node: Node, seconds: float) -> None:
        """Wait until the subscribers that are known are connected, at most so long; they would miss the beginning."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            known = {topic: node.count_subscribers(item.topic_name) for topic, item in self._publishers.items()}
            if all(self.subscribers[topic] >= count for topic, count in known.items()):
                return
            time.sleep(0.02)

    @property
    def subscribers(self) -> dict[str, int]:
        """Recorded topic → subscribers that are connected now."""
        return {topic: item.get_subscription_count() for topic, item in self._publishers.items()}

    def flush(self, seconds: float) -> None:
        """Wait until subscribers have what was published, at most so long; the last messages could be lost else."""
        end = time.monotonic() + seconds
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(end - time.monotonic(), 0.0)))

    def publish(self, message: LiveMessage) -> None:
        """Publish a message as it lies in the bag.

        Raises:
            OutputError: a listener holds up a topic all of whose messages are kept for it.
        """
        publisher = self._publishers[message.topic]
        try:
            publisher.publish(message.data)
        except RCLError:
            publisher.wait_for_all_acked(Duration(seconds=SLOW_S))
            try:
                publisher.publish(message.data)
            except RCLError as error:
                raise OutputError(
                    f'{publisher.topic_name}: a listener does not take its messages ({error}); stop it, or --remap '
                    f'{message.topic} to another topic'
                ) from error


def _is_whole(message: LiveMessage) -> bool:
    try:
        typestore.deserialize(message.data, message.msgtype)
    except Exception:  # of whatever the bytes say
        return False
    return True


def companions_first(messages: Iterable[LiveMessage], image_topic: str) -> Iterator[LiveMessage]:
    """Reorder a bag: what belongs to an image, as its depth image and camera_info, comes before it.

    Recorded, it often lies behind the image; a tracker that gets its images one by one would never find it in time.
    All else keeps its order. What is moved gets the time of its image. It is looked for in half a second, and not
    where the bag's time has begun anew.

    Args:
        messages: in the order of the bag.
        image_topic: of the images.
    """
    waiting: deque[LiveMessage] = deque()
    held = 0  # bytes of those
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
            early = [item for item in waiting if _belongs(item, image_topic, limit)]
            for item in early:
                waiting.remove(item)
                held -= len(item.data)
                # No later than the image: time would go back at it.
                yield replace(item, received_ns=min(item.received_ns, message.received_ns))
        yield message


def _within_reach(message: LiveMessage, waiting: deque[LiveMessage], held: int) -> bool:
    """Whether a message is still looked at beside those that wait, which are `held` bytes."""
    if not waiting:
        return True
    if len(waiting) >= MOST_AHEAD or held + len(message.data) > MOST_AHEAD_BYTES:
        return False
    begun_anew = message.received_ns < waiting[-1].received_ns - JUMP_NS
    return not begun_anew and message.received_ns - waiting[0].received_ns <= LOOK_AHEAD_NS


def _belongs(message: LiveMessage, image_topic: str, limit_ns: int) -> bool:
    if message.topic == image_topic or message.msgtype not in COMPANIONS:
        return False
    return message.stamp_ns is not None and message.stamp_ns <= limit_ns
