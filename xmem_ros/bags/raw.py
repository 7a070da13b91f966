# SPDX-License-Identifier: MIT
"""All messages of a bag, as the bytes that lie in it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.bags.live_topics import COMPANIONS, IMAGE_TYPES, BagMessage, node_prefixes
from xmem_ros.errors import ParameterError, XMemError
from xmem_ros.node.conversions import stamp_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Set


class BagError(XMemError, ValueError):
    """A bag."""


class RawBag:
    def __init__(self, path: Path, image_topic: str) -> None:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore

        self.path, self.damage = path, ''
        self._stack = contextlib.ExitStack()
        self._reader = self._stack.enter_context(
            AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        )
        self.connections = list(self._reader.connections)
        self.topics = {item.topic: item.msgtype for item in self.connections}
        ours = tuple(node_prefixes(self.topics, '/xmem'))
        images = [n for n, t in self.topics.items() if t in IMAGE_TYPES and not n.startswith(ours)]
        if image_topic:
            images = [n for n in images if n == image_topic]
        if len(images) != 1:
            raise ParameterError(f'{path}: image topics {images}')
        self.image_topic = images[0]
        self.image_type = self.topics[self.image_topic]
        self.images = sum(item.msgcount for item in self.connections if item.topic == self.image_topic)

    def __enter__(self) -> RawBag:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def messages(self, left_out: Set[str]) -> Iterator[BagMessage]:
        wanted = [item for item in self.connections if item.topic not in left_out]
        for connection, received, data in self._reader.messages(connections=wanted):
            message = BagMessage(connection.topic, connection.msgtype, received, bytes(data))
            if connection.msgtype in COMPANIONS:
                header = self.header(message)
                message = BagMessage(connection.topic, connection.msgtype, received, bytes(data), header and header[0])
            yield message

    def header(self, message: BagMessage) -> tuple[int, str] | None:
        try:
            header = self._reader.deserialize(message.data, message.msgtype).header
            return stamp_ns(header.stamp), header.frame_id
        except Exception:
            return None


def open_raw(path: Path | str, image_topic: str) -> RawBag:
    return RawBag(Path(path), image_topic)
