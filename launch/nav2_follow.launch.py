# SPDX-License-Identifier: MIT
"""Follow an object with nav2: `ros2 launch xmem_ros nav2_follow.launch.py object:=person`.

nav2 itself has to run, with a map or SLAM. The object is followed once it is seeded under its name.
"""

import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

TRACKED = {  # arguments of track.launch.py → default, description
    'image': ('image', 'Topic of the images.'),
    'depth_image': ('depth/image', 'Topic of the depth images, aligned to the images.'),
    'camera_info': ('depth/camera_info', 'Topic of the CameraInfo of the depth images.'),
    'web': ('true', 'Serve a web page, on which the object is seeded.'),
}


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('xmem_ros'))
    arguments = [
        DeclareLaunchArgument('object', default_value='person', description='Name of the object to follow.'),
        DeclareLaunchArgument(
            'params_file',
            default_value=str(share / 'config' / 'nav2_track.yaml'),
            description='YAML file with the parameters of the node.',
        ),
        *(
            DeclareLaunchArgument(name, default_value=default, description=description)
            for name, (default, description) in TRACKED.items()
        ),
    ]
    passed = ('params_file', *TRACKED)
    track = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / 'launch' / 'track.launch.py')),
        launch_arguments={name: LaunchConfiguration(name) for name in passed}.items(),
    )
    follow = ExecuteProcess(
        cmd=[sys.executable, str(share / 'examples' / 'nav2_follow.py'), '--name', LaunchConfiguration('object')],
        name='nav2_follow',
        output='screen',
        emulate_tty=True,
    )
    return LaunchDescription([*arguments, track, follow])
