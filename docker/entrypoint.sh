#!/bin/bash
# SPDX-License-Identifier: MIT
# Run a command with ROS and the package sourced.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/install/setup.bash
exec "$@"
