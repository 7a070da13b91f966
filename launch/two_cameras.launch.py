# SPDX-License-Identifier: MIT
"""Track two cameras in one process.

`ros2 launch xmem_ros two_cameras.launch.py front:=/a/image rear:=/b/image`

The nodes are /front/xmem and /rear/xmem. Copy this file for other names or more cameras. All other
settings, such as the device, come from params_file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile

from xmem_ros.node.middleware import profile_environment

CAMERAS = ['front', 'rear']


def generate_launch_description() -> LaunchDescription:
    default_params_file = str(Path(get_package_share_directory('xmem_ros')) / 'config' / 'track.yaml')
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name, default_value=f'/{name}/image', description=f'Topic of the images of the camera {name}.'
                )
                for name in CAMERAS
            ),
            DeclareLaunchArgument(
                'params_file',
                default_value=default_params_file,
                description='YAML file with the parameters of the nodes.',
            ),
            Node(
                package='xmem_ros',
                executable='xmem_node',
                parameters=[
                    ParameterFile(LaunchConfiguration('params_file'), allow_substs=True),
                    {'cameras': CAMERAS},
                ],
                remappings=[(f'/{name}/image', LaunchConfiguration(name)) for name in CAMERAS],
                additional_env=profile_environment(Path(get_package_share_directory('xmem_ros'))),
                output='screen',
                emulate_tty=True,
            ),
        ]
    )
