# SPDX-License-Identifier: MIT
"""XMem video object tracking for ROS 2.

This file only extends the search path. In a sourced ROS 2 workspace, the generated `xmem_ros.msg`
and `xmem_ros.srv` lie in the install space, while the Python modules may lie in a source checkout.
Both must be importable as one package.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
