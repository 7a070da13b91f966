# SPDX-License-Identifier: MIT
"""Sink for a bag with the node's topics and, on request, copies of the recorded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from xmem_ros.errors import OutputError
from xmem_ros.offline.sinks.base import Sink
from xmem_ros.recordings import typestore
from xmem_ros.recordings.typestore import ACCEPTED_SEEDS, COMPRESSED_IMAGE, IMAGE, OBJECTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from xmem_ros.offline.segments import StoredFrame

BAG = 'bag'
VERSION: Literal[8] = 8  # of the metadata; Humble cannot read QoS as written in version 9
UNKNOWN_HASH = f'RIHS01_{"0" * 64}'  # of a type without a definition in the recording


class BagSink(Sink):
    """An MCAP bag with compressed chunks.

    Every result follows its image and has that image's recording time.

    Arguments:
        folder: for the output.
        node: full name of the node, for the topics.
        originals: connections to copy from the recording, except those below the node's name.
        kept: topic to copy even if it is below the node's name.
        compressed: write label images as PNG, on `labels/compressed`.
    """

    def __init__(
        self,
        folder: Path,
        node: str = '/xmem',
        originals: Sequence[Any] = (),
        kept: str = '',
        *,
        compressed: bool = False,
    ) -> None:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        self._compressed = compressed
        self._writer = Writer(folder / BAG, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._copied: dict[int, Any] = {}
        self.left_out: list[str] = []  # topics that are not copied
        self.undefined: list[str] = []  # types copied without their definition
        try:
            for connection in originals:
                if connection.topic.startswith(f'{node}/') and connection.topic != kept:
                    self.left_out.append(connection.topic)
                else:
                    self._copied[connection.id] = self._add_copy(connection)
            topic, kind = ('labels/compressed', COMPRESSED_IMAGE) if compressed else ('labels', IMAGE)
            self._seeds = self._add(f'{node}/seeds', ACCEPTED_SEEDS, latched=100)
            self._labels = self._add(f'{node}/{topic}', kind)
            self._objects = self._add(f'{node}/objects', OBJECTS)
        except BaseException:
            self._writer.abort()
            raise
        self.needs_originals = bool(self._copied)

    def original(self, connection: Any, received_ns: int, raw: bytes) -> None:
        """As `Sink.original`."""
        copy = self._copied.get(connection.id)
        if copy is not None:
            self._put(copy, received_ns, raw)

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:  # noqa: ARG002
        """As `Sink.write`."""
        header = typestore.header(frame.stamp_ns, frame.frame_id)
        for raw in frame.seeds:
            self._put(self._seeds, frame.received_ns, raw)
        labels = (
            typestore.png(header, frame.labels) if self._compressed else typestore.image(header, frame.labels, 'mono8')
        )
        self._put(self._labels, frame.received_ns, typestore.serialize(labels))
        objects = typestore.objects_message(header, frame.objects)
        self._put(self._objects, frame.received_ns, typestore.serialize(objects))

    def finish(self) -> None:
        """As `Sink.finish`."""
        self._writer.close()

    def abort(self) -> None:
        """As `Sink.abort`."""
        self._writer.abort()

    def _put(self, connection: Any, received_ns: int, raw: bytes) -> None:
        try:
            self._writer.write(connection, received_ns, raw)
        except OSError as error:
            raise OutputError(f'{self._writer.path}: cannot be written ({error.strerror})') from error

    def _add(self, topic: str, msgtype: str, *, latched: int = 0) -> Any:
        from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

        unset = QosTime(0, 0)
        durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
        qos = Qos(
            QosHistory.KEEP_LAST,
            latched or 10,
            QosReliability.RELIABLE,
            durability,
            unset,
            unset,
            QosLiveliness.AUTOMATIC,
            unset,
            False,
        )
        return self._writer.add_connection(topic, msgtype, typestore=typestore.typestore(), offered_qos_profiles=[qos])

    def _add_copy(self, connection: Any) -> Any:
        definition, digest = connection.msgdef.data, connection.digest
        if not definition or not digest:
            definition, digest = _definition(connection)
            if not definition:
                self.undefined.append(connection.msgtype)
        return self._writer.add_connection(
            connection.topic,
            connection.msgtype,
            msgdef=definition,
            rihs01=digest,
            serialization_format=connection.ext.serialization_format,
            offered_qos_profiles=connection.ext.offered_qos_profiles,
        )


def _definition(connection: Any) -> tuple[str, str]:
    """Return definition and hash of a type; '' and a hash of zeros if unknown.

    Recorded definitions are copied, never compiled: rosbags turns them into Python code.
    """
    store, msgtype = typestore.typestore(), connection.msgtype
    if msgtype not in store.fielddefs:
        return connection.msgdef.data, connection.digest or UNKNOWN_HASH
    known, _ = store.generate_msgdef(msgtype, ros_version=2)
    return connection.msgdef.data or known, connection.digest or store.hash_rihs01(msgtype)
