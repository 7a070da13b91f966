# SPDX-License-Identifier: MIT
"""Track a camera: `ros2 launch xmem_ros track.launch.py image:=/camera/image_raw`."""

from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

from xmem_ros.node.middleware import profile_environment

# Arguments that override parameters of the node, with their types; empty: as in params_file.
OVERRIDES = {'image_transport': str, 'weights': str, 'device': str, 'use_sim_time': bool, 'autostart': bool}
# Topics of the node → the arguments that remap them.
TOPICS = {
    'image': 'image',
    'depth/image': 'depth_image',
    'depth/camera_info': 'camera_info',
    '~/seed_detections': 'seed_detections',
}
SWITCH = ['', 'true', 'false', 'True', 'False']


def start_page(context: LaunchContext) -> list[Action]:
    """Create the web page for seeding, if enabled."""
    if LaunchConfiguration('web').perform(context).lower() != 'true':
        return []
    namespace = LaunchConfiguration('namespace').perform(context).strip('/')
    token_file = LaunchConfiguration('web_token_file').perform(context)
    command = [
        str(Path(get_package_prefix('xmem_ros')) / 'lib' / 'xmem_ros' / 'xmem-ros'),
        *('web', '--node', f'/{namespace}/xmem' if namespace else '/xmem'),
        *('--host', LaunchConfiguration('web_host'), '--port', LaunchConfiguration('web_port')),
        *(('--token-file', token_file) if token_file else ()),
    ]
    return [ExecuteProcess(cmd=command, name='xmem_web', output='screen', emulate_tty=True)]


def start_stream(context: LaunchContext) -> list[Action]:
    """Create the camera that publishes a live stream, if one is given."""
    stream = LaunchConfiguration('stream').perform(context)
    if not stream:
        return []
    namespace = LaunchConfiguration('namespace').perform(context).strip('/')
    command = [
        str(Path(get_package_prefix('xmem_ros')) / 'lib' / 'xmem_ros' / 'scene_camera'),
        *('--topic', LaunchConfiguration('image')),
        *(('--ros-args', '-r', f'__ns:=/{namespace}') if namespace else ()),
    ]
    # An option with a password would be in the log when the process ends with an error.
    variables = {'XMEM_ROS_CLIP': stream, **profile_environment(Path(get_package_share_directory('xmem_ros')))}
    return [ExecuteProcess(cmd=command, name='stream', additional_env=variables, output='screen', emulate_tty=True)]


def start_node(context: LaunchContext) -> list[Action]:
    """Create the node, with the parameter file and the overriding arguments."""
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in OVERRIDES.items()
        if LaunchConfiguration(name).perform(context)
    }
    parameters: list[ParameterFile | dict] = [ParameterFile(LaunchConfiguration('params_file'), allow_substs=True)]
    if overrides:
        parameters.append(overrides)
    return [
        LifecycleNode(
            package='xmem_ros',
            executable='xmem_node',
            name='xmem',
            namespace=LaunchConfiguration('namespace'),
            parameters=parameters,
            remappings=[(topic, LaunchConfiguration(name)) for topic, name in TOPICS.items()],
            ros_arguments=['--log-level', LaunchConfiguration('log_level')],
            additional_env=profile_environment(Path(get_package_share_directory('xmem_ros'))),
            output='screen',
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    default_params_file = str(Path(get_package_share_directory('xmem_ros')) / 'config' / 'track.yaml')
    arguments = [
        DeclareLaunchArgument(
            'image',
            default_value='image',
            description='Topic of the images.',
        ),
        DeclareLaunchArgument(
            'image_transport',
            default_value='',
            choices=['', 'raw', 'compressed'],
            description='Transport of the images; compressed: on <image>/compressed. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'stream',
            default_value='',
            description='Live stream to publish as the images: a URL (rtsp://…, http://…), or a camera index such as '
            '/dev/video0. Empty: a camera driver publishes them.',
        ),
        DeclareLaunchArgument(
            'depth_image',
            default_value='depth/image',
            description='Topic of the depth images; used with the parameter depth.enabled.',
        ),
        DeclareLaunchArgument(
            'camera_info',
            default_value='depth/camera_info',
            description='Topic of the CameraInfo of the depth images.',
        ),
        DeclareLaunchArgument(
            'seed_detections',
            default_value='~/seed_detections',
            description='Topic of the detections to seed from; used with the parameter seed_detections.enabled.',
        ),
        DeclareLaunchArgument(
            'namespace',
            default_value='',
            description='Namespace of the node, and of an image topic without a leading "/".',
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=default_params_file,
            description='YAML file with the parameters of the node.',
        ),
        DeclareLaunchArgument(
            'weights',
            default_value='',
            description='Weights of the network: a name such as compact, or a file. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'device',
            default_value='',
            description='Device of the network: auto, cpu, cuda or cuda:N. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='',
            choices=SWITCH,
            description='Use the time of /clock, as in simulation and replay. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'autostart',
            default_value='',
            choices=SWITCH,
            description='Configure and activate the node at its start. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'web',
            default_value='false',
            choices=['true', 'false', 'True', 'False'],
            description='Serve a web page for seeding objects (xmem-ros web).',
        ),
        DeclareLaunchArgument(
            'web_host',
            default_value='127.0.0.1',
            description='Address of the page; 0.0.0.0: all interfaces, with a token.',
        ),
        DeclareLaunchArgument(
            'web_port',
            default_value='8088',
            description='Port of the page.',
        ),
        DeclareLaunchArgument(
            'web_token_file',
            default_value='',
            description='File with the token of the page. Empty: the environment variable XMEM_ROS_WEB_TOKEN; '
            'without it, a random token if other machines can reach the page.',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Minimum severity of log messages.',
        ),
    ]
    actions = [OpaqueFunction(function=start) for start in (start_node, start_stream, start_page)]
    return LaunchDescription([*arguments, *actions])
