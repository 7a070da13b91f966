# SPDX-License-Identifier: MIT
"""Track a camera: `ros2 launch xmem_ros track.launch.py image:=/camera/image_raw`.

With `cameras:=front,rear`, one process tracks several cameras. The arguments `image`, `stream`,
`depth_image`, `camera_info` and `seed_detections` then exist for each of them: `front_image`,
`rear_image` and so on.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

from xmem_ros.node.middleware import profile_environment

# Arguments that override parameters of the node, with their types; empty: as in params_file.
OVERRIDES = {
    'image_transport': str,
    'weights': str,
    'device': str,
    'load_on_start': str,
    'save_period': float,
    'use_sim_time': bool,
    'autostart': bool,
}
# Topics of the node → the arguments that remap them.
TOPICS = {
    'image': 'image',
    'depth/image': 'depth_image',
    'depth/camera_info': 'camera_info',
    '~/seed_detections': 'seed_detections',
}
SWITCH = ['', 'true', 'false', 'True', 'False']
BOOL = SWITCH[1:]
RESPAWN_DELAY_S = 2.0
CONFIGURE_S = 600.0  # configuring loads the network and may compile it


def value(context: LaunchContext, name: str) -> str:
    """Return an argument's value; empty if a camera's argument is not given."""
    return LaunchConfiguration(name, default='').perform(context)


def is_on(context: LaunchContext, name: str) -> bool:
    """Return whether a switch is on."""
    return value(context, name).lower() == 'true'


def trackers(context: LaunchContext) -> Iterator[tuple[str, str]]:
    """Yield the namespace of each tracker and the prefix of its arguments."""
    namespace = value(context, 'namespace').strip('/')
    root = f'/{namespace}' if namespace else ''
    cameras = value(context, 'cameras').replace(',', ' ').split()
    yield from ((f'{root}/{camera}', f'{camera}_') for camera in cameras)
    if not cameras:
        yield root, ''


def start_pages(context: LaunchContext) -> list[Action]:
    """Create the web page of each tracker, if enabled; their ports follow each other."""
    if not is_on(context, 'web'):
        return []
    token_file = value(context, 'web_token_file')
    actions: list[Action] = []
    for number, (namespace, _) in enumerate(trackers(context)):
        command = [
            str(Path(get_package_prefix('xmem_ros')) / 'lib' / 'xmem_ros' / 'xmem-ros'),
            *('web', '--node', f'{namespace}/{value(context, "name")}'),
            *('--host', value(context, 'web_host'), '--port', str(int(value(context, 'web_port')) + number)),
            *(('--token-file', token_file) if token_file else ()),
        ]
        actions.append(ExecuteProcess(cmd=command, name='xmem_web', output='screen', emulate_tty=True))
    return actions


def start_streams(context: LaunchContext) -> list[Action]:
    """Create the cameras that publish live streams, if any are given."""
    actions: list[Action] = []
    for namespace, prefix in trackers(context):
        stream = value(context, f'{prefix}stream')
        if not stream:
            continue
        command = [
            str(Path(get_package_prefix('xmem_ros')) / 'lib' / 'xmem_ros' / 'scene_camera'),
            *('--topic', value(context, f'{prefix}image') or 'image'),
            *(('--ros-args', '-r', f'__ns:={namespace}') if namespace else ()),
        ]
        # An option with a password would be in the log when the process ends with an error.
        variables = {'XMEM_ROS_CLIP': stream, **profile_environment(Path(get_package_share_directory('xmem_ros')))}
        actions.append(
            ExecuteProcess(cmd=command, name='stream', additional_env=variables, output='screen', emulate_tty=True)
        )
    return actions


def start_node(context: LaunchContext) -> list[Action]:
    """Create the node, with the parameter file and the overriding arguments."""
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in OVERRIDES.items()
        if value(context, name)
    }
    if is_on(context, 'manager'):
        overrides['autostart'] = False
    parameters: list[ParameterFile | dict] = [ParameterFile(LaunchConfiguration('params_file'), allow_substs=True)]
    if overrides:
        parameters.append(overrides)
    several = [prefix.rstrip('_') for _, prefix in trackers(context) if prefix]
    # The topics of one of several nodes have to be named in full.
    remappings = [
        (f'{namespace}/{topic.replace("~", value(context, "name"))}' if prefix else topic, target)
        for namespace, prefix in trackers(context)
        for topic, name in TOPICS.items()
        if (target := value(context, f'{prefix}{name}'))
    ]
    # launch_ros writes the overrides under the full name of a node with a name: here, of no node.
    # Without one, it writes them under /**, for all nodes of the process.
    named = {} if several else {'name': LaunchConfiguration('name')}
    rename = ['-r', ['__node:=', LaunchConfiguration('name')]] if several else []
    kind = Node if several else LifecycleNode
    return [
        kind(
            **named,
            package='xmem_ros',
            executable='xmem_node',
            namespace=LaunchConfiguration('namespace'),
            arguments=['--cameras', *several] if several else [],
            parameters=parameters,
            remappings=remappings,
            ros_arguments=['--log-level', LaunchConfiguration('log_level'), *rename],
            additional_env=profile_environment(Path(get_package_share_directory('xmem_ros'))),
            respawn=is_on(context, 'respawn'),
            respawn_delay=RESPAWN_DELAY_S,
            output='screen',
            emulate_tty=True,
        )
    ]


def start_manager(context: LaunchContext) -> list[Action]:
    """Create a lifecycle manager of nav2 for the trackers alone, if enabled."""
    if not is_on(context, 'manager'):
        return []
    # Without bondpy the nodes have no bond. Other nodes, under their own manager, keep theirs.
    manager = {
        'autostart': True,
        'bond_timeout': 4.0 if importlib.util.find_spec('bondpy') else 0.0,
        'service_timeout': CONFIGURE_S,
    }
    return [
        Node(
            package='nav2_lifecycle_manager',
            executable='lifecycle_manager',
            name=f'lifecycle_manager_{value(context, "name")}{prefix and "_" + prefix.rstrip("_")}',
            namespace=namespace,
            parameters=[{'node_names': [value(context, 'name')], **manager}],
            output='screen',
        )
        for namespace, prefix in trackers(context)
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
            'cameras',
            default_value='',
            description='Names of several cameras that one process tracks, as front,rear. The topics of each are then '
            'arguments of their own: front_image, rear_image, front_depth_image and so on. Empty: one camera.',
        ),
        DeclareLaunchArgument(
            'name',
            default_value='xmem',
            description='Name of the node.',
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
            'load_on_start',
            default_value='',
            description='Name of a memory file whose objects the node continues with. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'save_period',
            default_value='',
            description='Time in s between two saves of that file; 0: never. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'respawn',
            default_value='false',
            choices=BOOL,
            description='Start the node again when its process ends; with load_on_start and save_period, it continues '
            'with its objects.',
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
            'manager',
            default_value='false',
            choices=BOOL,
            description='Start a lifecycle manager (nav2_lifecycle_manager) for this node alone; it configures and '
            'activates the node in place of autostart.',
        ),
        DeclareLaunchArgument(
            'web',
            default_value='false',
            choices=BOOL,
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
            description='Port of the page; with several cameras, of the first one. The others follow.',
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
    actions = [OpaqueFunction(function=start) for start in (start_node, start_manager, start_streams, start_pages)]
    return LaunchDescription([*arguments, *actions])
