# SPDX-License-Identifier: MIT
"""Track two cameras in one process.

`ros2 launch xmem_ros two_cameras.launch.py front:=/a/image rear:=/b/image`

The nodes are /front/xmem and /rear/xmem. Copy this file for other names or more cameras. The other
arguments are those of track.launch.py.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

CAMERAS = ['front', 'rear']
# Arguments of each camera, as in front_stream → what they are.
OF_CAMERA = {
    'stream': 'Live stream to publish as the images',
    'depth_image': 'Topic of the depth images',
    'camera_info': 'Topic of the CameraInfo of the depth images',
    'seed_detections': 'Topic of the detections to seed from',
}


def generate_launch_description() -> LaunchDescription:
    track = str(Path(get_package_share_directory('xmem_ros')) / 'launch' / 'track.launch.py')
    images = [
        DeclareLaunchArgument(
            name, default_value=f'/{name}/image', description=f'Topic of the images of the camera {name}.'
        )
        for name in CAMERAS
    ]
    others = [
        DeclareLaunchArgument(f'{name}_{argument}', default_value='', description=f'{text} of the camera {name}.')
        for name in CAMERAS
        for argument, text in OF_CAMERA.items()
    ]
    given = {'cameras': ','.join(CAMERAS)} | {f'{name}_image': LaunchConfiguration(name) for name in CAMERAS}
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(track), launch_arguments=given.items())
    return LaunchDescription([*images, *others, include])
