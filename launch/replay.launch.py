# SPDX-License-Identifier: MIT
"""Replay a bag into the tracker: `ros2 launch xmem_ros replay.launch.py bag:=drive`.

The bag starts once the node is active. Everything ends shortly after the bag, unless `loop` or
`keep` is set. Recorded tracker outputs are played below /recorded, separate from the new ones.
"""

import time
from collections.abc import Callable
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown as ShutdownEvent
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from xmem_ros.node.middleware import profile_environment
from xmem_ros.replay.ros2_bag_play import BagTopics, played_topics, recorded_remaps, topics_of

# Arguments that override parameters of the node, with their types; empty: as in params_file.
OVERRIDES = {'weights': str, 'device': str, 'queue': str, 'on_time_jump': str}
SWITCH = ['true', 'false', 'True', 'False']
LINGER_S = 3.0  # after the end of the bag, for images that still wait to be tracked
POLL_INTERVAL_S = 0.2  # between requests for the node's state
ANSWER_TIMEOUT_S = 2.0  # after which the request is repeated


def argument(context: LaunchContext, name: str) -> str:
    """Return the value of an argument."""
    return LaunchConfiguration(name).perform(context)


def switched_on(context: LaunchContext, name: str) -> bool:
    """Return whether an argument is true."""
    return argument(context, name).lower() == 'true'


def node_name(context: LaunchContext) -> str:
    """Return the full name of the node."""
    namespace = argument(context, 'namespace').strip('/')
    return f'/{namespace}/xmem' if namespace else '/xmem'


def make_node(context: LaunchContext, bag: BagTopics) -> LifecycleNode:
    """Create the tracker, subscribed to the bag's images, raw or compressed."""
    parameters: list[ParameterFile | dict] = [ParameterFile(LaunchConfiguration('params_file'), allow_substs=True)]
    overrides: dict = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in OVERRIDES.items()
        if argument(context, name)
    }
    overrides['use_sim_time'] = switched_on(context, 'use_sim_time')
    if bag.image:
        overrides['image_transport'] = 'compressed' if bag.compressed else 'raw'
    return LifecycleNode(
        package='xmem_ros',
        executable='xmem_node',
        name='xmem',
        namespace=LaunchConfiguration('namespace'),
        parameters=[*parameters, overrides],
        remappings=[('image/compressed' if bag.compressed else 'image', bag.image)] if bag.image else [],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        additional_env=profile_environment(Path(get_package_share_directory('xmem_ros'))),
        output='screen',
        emulate_tty=True,
    )


def make_player(context: LaunchContext, bag: BagTopics) -> ExecuteProcess:
    """Create `ros2 bag play`, or `xmem-ros replay`, which waits for the masks of each image."""
    path = argument(context, 'bag')
    if switched_on(context, 'lockstep'):
        program = str(Path(get_package_prefix('xmem_ros')) / 'lib' / 'xmem_ros' / 'xmem-ros')
        command = [program, 'replay', path, '--node', node_name(context)]
        command += ['--image-topic', bag.image] if bag.image else []
        command += ['--seed', argument(context, 'seed')] if argument(context, 'seed') else []
        command += ['--rate', argument(context, 'rate')] if argument(context, 'rate') else []
        command += ['--clock'] if switched_on(context, 'use_sim_time') else []
        return ExecuteProcess(cmd=command, name='replay', output='screen', emulate_tty=True)
    command = ['ros2', 'bag', 'play', path, '--disable-keyboard-controls', '--rate', argument(context, 'rate') or '1.0']
    command += ['--start-offset', argument(context, 'start_offset') or '0.0']
    command += ['--clock', '100'] if switched_on(context, 'use_sim_time') else []
    command += ['--loop'] if switched_on(context, 'loop') else []
    topics = played_topics(bag, clock=switched_on(context, 'use_sim_time'))
    command += ['--topics', *topics] if topics else []
    command += ['--remap', *recorded_remaps(bag, node_name(context))]
    return ExecuteProcess(cmd=command, name='bag_play', output='screen')


def make_recorder(context: LaunchContext, bag: BagTopics) -> list[Action]:
    """Create `ros2 bag record` of the images and all topics of the node, if a folder is given."""
    folder = argument(context, 'record')
    if not folder:
        return []
    if Path(folder).exists():
        raise RuntimeError(f'record:={folder} exists: give the name of a new folder')
    topics = [node_name(context) + '/.*', *([bag.image] if bag.image else [])]
    command = ['ros2', 'bag', 'record', '--output', folder, '--regex', f'^({"|".join(topics)})$']
    command += ['--use-sim-time'] if switched_on(context, 'use_sim_time') else []
    return [ExecuteProcess(cmd=command, name='bag_record', output='screen')]


def make_rviz(context: LaunchContext) -> list[Action]:
    """Create RViz with the package's layout, remapped to the node's namespace."""
    if not switched_on(context, 'rviz'):
        return []
    layout = Path(get_package_share_directory('xmem_ros')) / 'config' / 'xmem.rviz'
    shown = ('overlay', 'labels', 'object_1/mask')
    return [
        Node(
            package='rviz2',
            executable='rviz2',
            arguments=['-d', str(layout)],
            parameters=[{'use_sim_time': switched_on(context, 'use_sim_time')}],
            remappings=[(f'/xmem/{topic}', f'{node_name(context)}/{topic}') for topic in shown],
        )
    ]


def check(context: LaunchContext) -> None:
    """Refuse invalid arguments before the weights are loaded."""
    path = Path(argument(context, 'bag'))
    if not path.exists():
        raise RuntimeError(f'bag:={path} does not exist: give the folder of a bag, or its .mcap or .db3 file')
    lockstep = switched_on(context, 'lockstep')
    for name, least in (('rate', 0.001), ('start_offset', 0.0)):
        try:
            value = float(argument(context, name) or 1.0)
        except ValueError:
            value = -1.0
        if not least <= value < 1e9:
            raise RuntimeError(
                f'{name}:={argument(context, name)} is out of range: give a number of at least {least:g}'
            )
    unsupported = {
        'start_offset': float(argument(context, 'start_offset') or 0.0) > 0.0,
        'loop': switched_on(context, 'loop'),
    }
    for name, asked in unsupported.items():
        if lockstep and asked:
            raise RuntimeError(f'{name} is not allowed with lockstep:=true: leave out {name} or lockstep')
    if argument(context, 'seed') and not lockstep:
        raise RuntimeError('seed needs the lock-step replay: add lockstep:=true')
    if lockstep and not argument(context, 'record'):
        return
    if not installed('ros2bag'):
        raise RuntimeError(
            'ros2 bag is not installed: apt install ros-$ROS_DISTRO-ros2bag '
            'ros-$ROS_DISTRO-rosbag2-storage-default-plugins, or use lockstep:=true without record'
        )
    mcap = any(path.glob('*.mcap*')) if path.is_dir() else '.mcap' in path.suffixes
    if mcap and not lockstep and not installed('rosbag2_storage_mcap'):
        raise RuntimeError(
            f'{path} is an MCAP bag and ros2 bag has no plugin for it: apt install '
            'ros-$ROS_DISTRO-rosbag2-storage-mcap, or use lockstep:=true, which needs none'
        )


def installed(package: str) -> bool:
    """Return whether a ROS package is installed."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def when_active(name: str, actions: list[Action]) -> Callable[[LaunchContext], list[Action]]:
    """Start actions once a node is active.

    The state is polled: a transition event may be published before the subscription is matched.
    """
    client, answer, asked = None, None, 0.0

    def ask(context: LaunchContext) -> list[Action]:
        nonlocal client, answer, asked
        if context.is_shutdown:
            return []
        if client is None:
            client = get_ros_node(context).create_client(GetState, f'{name}/get_state')
        if answer is not None and answer.done() and answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
            return actions
        overdue = time.monotonic() - asked > ANSWER_TIMEOUT_S
        if client.service_is_ready() and (answer is None or answer.done() or overdue):
            answer, asked = client.call_async(GetState.Request()), time.monotonic()
        return [TimerAction(period=POLL_INTERVAL_S, actions=[OpaqueFunction(function=ask)])]

    return ask


def end(reason: str, after: float = 0.0) -> Callable[[ProcessExited, LaunchContext], list[Action]]:
    """Create a handler that shuts everything down after the end of a process."""

    def ended(event: ProcessExited, context: LaunchContext) -> list[Action]:  # noqa: ARG001
        if context.is_shutdown:
            return []
        actions: list[Action] = [LogInfo(msg=reason), EmitEvent(event=ShutdownEvent(reason=reason))]
        return [TimerAction(period=after, actions=actions)] if after else actions

    return ended


def start(context: LaunchContext) -> list[Action]:
    """Create the node, the player, and the optional recorder and RViz."""
    check(context)
    bag = topics_of(Path(argument(context, 'bag')), argument(context, 'image'))
    node, player = make_node(context, bag), make_player(context, bag)
    actions = [
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end('the node ended'))),
    ]
    if not switched_on(context, 'keep'):
        actions.append(
            RegisterEventHandler(OnProcessExit(target_action=player, on_exit=end('the bag ended', after=LINGER_S)))
        )
    begin = OpaqueFunction(function=when_active(node_name(context), [player]))
    return [*actions, *make_recorder(context, bag), node, *make_rviz(context), begin]


def generate_launch_description() -> LaunchDescription:
    default_params_file = str(Path(get_package_share_directory('xmem_ros')) / 'config' / 'track.yaml')
    arguments = [
        DeclareLaunchArgument(
            'bag',
            description='Folder of the bag, or its .mcap or .db3 file.',
        ),
        DeclareLaunchArgument(
            'image',
            default_value='',
            description='Topic of the images in the bag. Empty: the only one in its metadata.yaml.',
        ),
        DeclareLaunchArgument(
            'rate',
            default_value='',
            description='Speed of the replay. Empty: 1, the recorded speed; with lockstep, that of the node.',
        ),
        DeclareLaunchArgument(
            'start_offset',
            default_value='0.0',
            description='Start offset in the bag [s]; not with lockstep.',
        ),
        DeclareLaunchArgument(
            'loop',
            default_value='false',
            choices=SWITCH,
            description='Repeat the bag. Its stamps jump back each time, see on_time_jump.',
        ),
        DeclareLaunchArgument(
            'on_time_jump',
            default_value='',
            choices=['', 'keep', 'reset'],
            description='When loop restarts the bag: keep the objects, or reset the node. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'lockstep',
            default_value='false',
            choices=SWITCH,
            description='Publish each image after the masks of the previous one, so that none is lost '
            '(xmem-ros replay instead of ros2 bag play).',
        ),
        DeclareLaunchArgument(
            'seed',
            default_value='',
            description='With lockstep: mask file of the objects in the first image. Empty: the seeds in the bag.',
        ),
        DeclareLaunchArgument(
            'record',
            default_value='',
            description='New folder for a bag with the images and all topics of the node. Empty: none.',
        ),
        DeclareLaunchArgument(
            'rviz',
            default_value='false',
            choices=SWITCH,
            description='Show overlay and labels in RViz.',
        ),
        DeclareLaunchArgument(
            'keep',
            default_value='false',
            choices=SWITCH,
            description='Continue after the end of the bag, until Ctrl-C.',
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='true',
            choices=SWITCH,
            description='Publish the time of the bag on /clock, and use it in the nodes.',
        ),
        DeclareLaunchArgument(
            'namespace',
            default_value='',
            description='Namespace of the node.',
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
            'queue',
            default_value='',
            choices=['', 'newest', 'all'],
            description='Track the newest image, or all images. Empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Minimum severity of log messages.',
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
