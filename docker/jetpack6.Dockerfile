# SPDX-License-Identifier: MIT
# The node on a Jetson Orin with JetPack 6: Ubuntu 22.04, Python 3.10, CUDA 12.6, ROS 2 Humble.
# Build it on the Jetson: docker build -f docker/jetpack6.Dockerfile -t xmem_ros:jetpack6 .
# Usage, and a list of what is untested: docs/jetson_install.md.

# CUDA, cuDNN and TensorRT of the JetPack. A container runs on every minor version of its L4T series.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

ARG ROS_DISTRO=humble
# https://github.com/ros-infrastructure/ros-apt-source/releases
ARG ROS_APT_SOURCE=1.1.0
# Wheels built for this JetPack; PyPI's have no CUDA for it.
ARG WHEELS=https://pypi.jetson-ai-lab.io/jp6/cu126
ARG TORCH="torch==2.8.0 torchvision==0.23.0"

ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PIP_NO_CACHE_DIR=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl \
    && . /etc/os-release \
    && curl -fsSLo ros.deb "https://github.com/ros-infrastructure/ros-apt-source/releases/download/${ROS_APT_SOURCE}/ros2-apt-source_${ROS_APT_SOURCE}.${UBUNTU_CODENAME}_all.deb" \
    && apt-get install -y ./ros.deb && rm ros.deb \
    && apt-get update && apt-get install -y --no-install-recommends \
        build-essential libgomp1 libopenblas0 python3-colcon-common-extensions python3-pip python3-rosdep \
        "ros-${ROS_DISTRO}-ros-base" \
    && rm -rf /var/lib/apt/lists/*

# Declared dependencies, in a layer of their own that changes of the code do not rebuild.
COPY package.xml /ws/src/xmem_ros/package.xml
RUN apt-get update && rosdep init && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install --from-paths /ws/src --ignore-src -y --rosdistro "${ROS_DISTRO}" \
    && rm -rf /var/lib/apt/lists/*

# The system's OpenCV was built with NumPy 1.
RUN pip3 install --index-url "${WHEELS}" "numpy<2" ${TORCH} onnxruntime-gpu \
    && pip3 install "numpy<2" msgspec safetensors onnx onnxscript

COPY . /ws/src/xmem_ros
RUN . "/opt/ros/${ROS_DISTRO}/setup.bash" && cd /ws && colcon build --packages-select xmem_ros

# Fetched weights, exported models, TensorRT's engines and saved memories. Without a volume each container starts empty.
ENV ROS_DISTRO=${ROS_DISTRO} XMEM_ROS_WEIGHTS=/cache ROS_HOME=/cache/ros
VOLUME /cache
COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/bin/bash", "/entrypoint.sh"]
CMD ["ros2", "launch", "xmem_ros", "track.launch.py", "params_file:=/ws/install/xmem_ros/share/xmem_ros/config/jetson.yaml"]
