# SPDX-License-Identifier: MIT
"""Program that starts a launch file, as `ros2 launch` does."""

from __future__ import annotations

START_S = 120.0  # importing torch on a busy machine takes long

# ros2cli may be missing even if launch is installed.
LAUNCHER = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *arguments = sys.argv[1:]
pairs = [tuple(argument.split(':=', 1)) for argument in arguments]
service = LaunchService()
source = PythonLaunchDescriptionSource(path)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)]))
sys.exit(service.run())
"""
