# SPDX-License-Identifier: MIT
"""Consumer process: writes `xmem/labels` and `xmem/objects` to a file, one JSON list per line.

    python -m robustness.consumer FILE [--ros-args …]

    ["listening", now]
    ["labels", now, stamp, height, width, pixels]     uint8, zlib, base64
    ["objects", now, stamp, [[id, label, name], …]]

Times in ns of the system's clock. Used by `python -m robustness restarts`.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from xmem_ros.conversions.images import stamp_ns
from xmem_ros.msg import TrackedObjectArray

QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class Consumer(Node):
    """Writes messages as they arrive."""

    def __init__(self, path: Path) -> None:
        super().__init__('consumer')
        self._file = path.open('w', buffering=1)
        self.create_subscription(Image, 'xmem/labels', self._take_labels, QOS)
        self.create_subscription(TrackedObjectArray, 'xmem/objects', self._take_objects, QOS)
        self._write('listening')

    def _write(self, *line: Any) -> None:
        kind, *rest = line
        self._file.write(json.dumps([kind, time.time_ns(), *rest]) + '\n')

    def _take_labels(self, message: Image) -> None:
        pixels = base64.b64encode(zlib.compress(bytes(message.data), 1)).decode()
        self._write('labels', stamp_ns(message.header.stamp), message.height, message.width, pixels)

    def _take_objects(self, message: TrackedObjectArray) -> None:
        objects = [[item.id, item.label, item.name] for item in message.objects]
        self._write('objects', stamp_ns(message.header.stamp), objects)


def main() -> int:
    """Run until SIGINT."""
    path = Path(remove_ros_args(sys.argv)[1])
    try:
        rclpy.init(args=sys.argv)
        rclpy.spin(Consumer(path))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError:  # the signal arrived while rclpy built its wait set
        if rclpy.ok():
            raise
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
