# SPDX-License-Identifier: MIT
"""Optional modules: tests that need a missing one are skipped, with the reason."""

from __future__ import annotations

import pytest

REASONS = {
    'aiohttp': "aiohttp is not installed: pip install '.[web]'",
    'av': 'PyAV is not installed: pip install av',
    'bondpy.bondpy': 'bondpy is not installed: apt install ros-<distribution>-bondpy',
    'launch.actions': 'launch is not installed: source ROS 2',
    'launch_ros.actions': 'launch_ros is not installed: source ROS 2',
    'onnxruntime': "onnxruntime is not installed: pip install '.[onnx]'",
    'onnxscript': "onnxscript is not installed: pip install '.[onnx]'",
    'playwright': "playwright is not installed: pip install '.[dev]'",
    'pycocotools.mask': "pycocotools is not installed: pip install '.[bags]'",
    'supervision': "supervision is not installed: pip install '.[dev]'",
    'pycocotools': "pycocotools is not installed: pip install '.[bags]'",
    'rclpy': 'rclpy is not importable: run make build, or source ROS 2',
    'rosbags.rosbag2': "rosbags is not installed: pip install '.[bags]'",
    'vision_msgs.msg': 'vision_msgs is not installed: source a ROS 2 that has it',
    'vos_benchmark': "vos-benchmark is not installed: pip install '.[evaluation]'",
    'xmem_ros.msg': 'the messages are not built: run make build',
}


def require(*modules: str) -> None:
    """Skip the calling file or test if one of the modules cannot be imported."""
    __tracebackhide__ = True
    for module in modules:
        pytest.importorskip(module, reason=REASONS[module])
