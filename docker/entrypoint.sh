#!/bin/bash
# SPDX-License-Identifier: MIT
# Run a command with ROS and the package sourced.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/install/setup.bash
# Room for whole images. One setting by two names: Fast DDS 3 knows the first, Fast DDS 2 the second.
profile=/ws/install/xmem_ros/share/xmem_ros/config/fastdds.xml
export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE-${profile}}"
export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE-${FASTDDS_DEFAULT_PROFILES_FILE}}"
exec "$@"
