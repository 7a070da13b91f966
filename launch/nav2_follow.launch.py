# SPDX-License-Identifier: MIT
"""Follow an object with nav2: `ros2 launch xmem_ros nav2_follow.launch.py object:=person`.

nav2 itself has to run, with a map or SLAM. The object is followed once it is seeded under its name.
"""

import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

TRACKED = {  # arguments of track.launch.py → default, description
    'name': ('xmem', 'Name of the node that tracks.'),
    'namespace': ('', 'Namespace of the node, of goal_update and of the action navigate_to_pose of nav2.'),
    'image': ('image', 'Topic of the images.'),
    'depth_image': ('depth/image', 'Topic of the depth images, aligned to the images.'),
    'camera_info': ('depth/camera_info', 'Topic of the CameraInfo of the depth images.'),
    'web': ('true', 'Serve a web page, on which the object is seeded.'),
}


def start_follower(context: LaunchContext) -> list[Action]:
    """Create the follower, in the namespace of the tracker."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ('object', 'frame', 'name', 'namespace')}
    namespace = f'/{given["namespace"].strip("/")}'.rstrip('/')
    command = [
        *(sys.executable, str(Path(get_package_share_directory('xmem_ros')) / 'examples' / 'nav2_follow.py')),
        *('--name', given['object'], '--node', f'{namespace}/{given["name"]}', '--frame', given['frame']),
        *(('--ros-args', '-r', f'__ns:={namespace}') if namespace else ()),
    ]
    return [ExecuteProcess(cmd=command, name='nav2_follow', output='screen', emulate_tty=True)]


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('xmem_ros'))
    arguments = [
        DeclareLaunchArgument('object', default_value='person', description='Name of the object to follow.'),
        DeclareLaunchArgument(
            'frame',
            default_value='map',
            description='Frame of the goals; depth.target_frame in params_file has to be the same.',
        ),
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
    return LaunchDescription([*arguments, track, OpaqueFunction(function=start_follower)])
