# SPDX-License-Identifier: MIT
"""Replay a bag into the tracker: `ros2 launch xmem_ros replay.launch.py bag:=drive`.

The bag begins once the node is active, and all ends shortly after the bag, unless `loop` or `keep` says otherwise. What
the tracker published when the bag was recorded is played below /recorded, apart from what it says now.
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

from xmem_ros.replay.ros2_bag_play import BagTopics, played_topics, recorded_remaps, topics_of

# Arguments that are parameters of the node, with their types. One that is empty leaves the word to params_file.
OVERRIDES = {'weights': str, 'device': str, 'queue': str, 'on_time_jump': str}
SWITCH = ['true', 'false', 'True', 'False']
LINGER_S = 3.0  # for the images that still wait when the bag has ended
ASK_EVERY_S = 0.2  # whether the node is active
ANSWER_S = 2.0  # after which it is asked anew


def given(context: LaunchContext, name: str) -> str:
    """What an argument says."""
    return LaunchConfiguration(name).perform(context)


def switched_on(context: LaunchContext, name: str) -> bool:
    return given(context, name).lower() == 'true'


def node_name(context: LaunchContext) -> str:
    """The node's full name."""
    namespace = given(context, 'namespace').strip('/')
    return f'/{namespace}/xmem' if namespace else '/xmem'


def make_node(context: LaunchContext, bag: BagTopics) -> LifecycleNode:
    """The tracker, listening to the bag's images, whatever they are called and however they are packed."""
    parameters: list[ParameterFile | dict] = [ParameterFile(LaunchConfiguration('params_file'), allow_substs=True)]
    overrides: dict = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in OVERRIDES.items()
        if given(context, name)
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
        output='screen',
        emulate_tty=True,
    )


def make_player(context: LaunchContext, bag: BagTopics) -> ExecuteProcess:
    """`ros2 bag play`, or `xmem-ros replay`, which waits for the masks of each image."""
    path = given(context, 'bag')
    if switched_on(context, 'lockstep'):
        program = str(Path(get_package_prefix('xmem_ros')) / 'lib' / 'xmem_ros' / 'xmem-ros')
        command = [program, 'replay', path, '--node', node_name(context)]
        command += ['--image-topic', bag.image] if bag.image else []
        command += ['--seed', given(context, 'seed')] if given(context, 'seed') else []
        command += ['--rate', given(context, 'rate')] if given(context, 'rate') else []
        command += ['--clock'] if switched_on(context, 'use_sim_time') else []
        return ExecuteProcess(cmd=command, name='replay', output='screen', emulate_tty=True)
    command = ['ros2', 'bag', 'play', path, '--disable-keyboard-controls', '--rate', given(context, 'rate') or '1.0']
    command += ['--start-offset', given(context, 'start_offset') or '0.0']
    command += ['--clock', '100'] if switched_on(context, 'use_sim_time') else []
    command += ['--loop'] if switched_on(context, 'loop') else []
    topics = played_topics(bag, clock=switched_on(context, 'use_sim_time'))
    command += ['--topics', *topics] if topics else []
    command += ['--remap', *recorded_remaps(bag, node_name(context))]
    return ExecuteProcess(cmd=command, name='bag_play', output='screen')


def make_recorder(context: LaunchContext, bag: BagTopics) -> list[Action]:
    """`ros2 bag record` of the images and of all that the node says, where a folder is given."""
    folder = given(context, 'record')
    if not folder:
        return []
    if Path(folder).exists():
        raise RuntimeError(f'record:={folder} is there already: give the name of a folder that is new')
    topics = [node_name(context) + '/.*', *([bag.image] if bag.image else [])]
    command = ['ros2', 'bag', 'record', '--output', folder, '--regex', f'^({"|".join(topics)})$']
    command += ['--use-sim-time'] if switched_on(context, 'use_sim_time') else []
    return [ExecuteProcess(cmd=command, name='bag_record', output='screen')]


def make_rviz(context: LaunchContext) -> list[Action]:
    """RViz with the layout of the package, moved to the node's namespace."""
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
    """Say at once what cannot work, before the weights are loaded."""
    path = Path(given(context, 'bag'))
    if not path.exists():
        raise RuntimeError(f'bag:={path} is not there: give the folder of a bag, or its .mcap or .db3 file')
    lockstep = switched_on(context, 'lockstep')
    for name, least in (('rate', 0.001), ('start_offset', 0.0)):
        try:
            value = float(given(context, name) or 1.0)
        except ValueError:
            value = -1.0
        if not least <= value < 1e9:
            raise RuntimeError(f'{name}:={given(context, name)}: give a number from {least:g}')
    unfit = {'start_offset': float(given(context, 'start_offset') or 0.0) > 0.0, 'loop': switched_on(context, 'loop')}
    for name, asked in unfit.items():
        if lockstep and asked:
            raise RuntimeError(f'{name} is of ros2 bag play: leave it out with lockstep:=true, or leave out lockstep')
    if given(context, 'seed') and not lockstep:
        raise RuntimeError('seed is shown to the node by the lock-step replay: add lockstep:=true')
    if lockstep and not given(context, 'record'):
        return
    if not installed('ros2bag'):
        raise RuntimeError(
            'ros2 bag is not installed: apt install ros-$ROS_DISTRO-ros2bag '
            'ros-$ROS_DISTRO-rosbag2-storage-default-plugins, or use lockstep:=true without record'
        )
    mcap = any(path.glob('*.mcap*')) if path.is_dir() else '.mcap' in path.suffixes
    if mcap and not lockstep and not installed('rosbag2_storage_mcap'):
        raise RuntimeError(
            f'{path} is an MCAP bag, for which ros2 bag lacks a plugin here: apt install '
            'ros-$ROS_DISTRO-rosbag2-storage-mcap, or use lockstep:=true, which needs none'
        )


def installed(package: str) -> bool:
    """Whether a ROS package is there."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def when_active(name: str, actions: list[Action]) -> Callable[[LaunchContext], list[Action]]:
    """Start something once a node is active.

    It is asked again and again: its announcement may come before anybody can hear it.
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
        overdue = time.monotonic() - asked > ANSWER_S
        if client.service_is_ready() and (answer is None or answer.done() or overdue):
            answer, asked = client.call_async(GetState.Request()), time.monotonic()
        return [TimerAction(period=ASK_EVERY_S, actions=[OpaqueFunction(function=ask)])]

    return ask


def end(reason: str, after: float = 0.0) -> Callable[[ProcessExited, LaunchContext], list[Action]]:
    """What is done when a process has ended: end all, unless that is under way."""

    def ended(event: ProcessExited, context: LaunchContext) -> list[Action]:  # noqa: ARG001
        if context.is_shutdown:
            return []
        actions: list[Action] = [LogInfo(msg=reason), EmitEvent(event=ShutdownEvent(reason=reason))]
        return [TimerAction(period=after, actions=actions)] if after else actions

    return ended


def start(context: LaunchContext) -> list[Action]:
    """Return the node, and what follows it."""
    check(context)
    bag = topics_of(Path(given(context, 'bag')), given(context, 'image'))
    node, player = make_node(context, bag), make_player(context, bag)
    actions = [
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end('the node has ended'))),
    ]
    if not switched_on(context, 'keep'):
        actions.append(
            RegisterEventHandler(OnProcessExit(target_action=player, on_exit=end('the bag has ended', after=LINGER_S)))
        )
    begin = OpaqueFunction(function=when_active(node_name(context), [player]))
    return [*actions, *make_recorder(context, bag), node, *make_rviz(context), begin]


def generate_launch_description() -> LaunchDescription:
    default_params_file = str(Path(get_package_share_directory('xmem_ros')) / 'config' / 'track.yaml')
    arguments = [
        DeclareLaunchArgument(
            'bag',
            description='The bag: its folder, or an .mcap or .db3 file.',
        ),
        DeclareLaunchArgument(
            'image',
            default_value='',
            description='Topic of the images in the bag. Empty: the only one, as far as its metadata.yaml tells.',
        ),
        DeclareLaunchArgument(
            'rate',
            default_value='',
            description='Speed of the replay; 1: as it was recorded. Empty: 1; with lockstep, as fast as the node is.',
        ),
        DeclareLaunchArgument(
            'start_offset',
            default_value='0.0',
            description='Begin so many seconds into the bag; not with lockstep.',
        ),
        DeclareLaunchArgument(
            'loop',
            default_value='false',
            choices=SWITCH,
            description='Begin again at the end of the bag. Stamps jump back then: see on_time_jump.',
        ),
        DeclareLaunchArgument(
            'on_time_jump',
            default_value='',
            choices=['', 'keep', 'reset'],
            description='With each round of loop, keep the objects or forget them. Empty: as params_file says.',
        ),
        DeclareLaunchArgument(
            'lockstep',
            default_value='false',
            choices=SWITCH,
            description='Show each image when the masks of the one before have come, so that none is lost '
            '(xmem-ros replay in place of ros2 bag play).',
        ),
        DeclareLaunchArgument(
            'seed',
            default_value='',
            description='With lockstep: mask file of the objects in the first image. Empty: the seeds in the bag.',
        ),
        DeclareLaunchArgument(
            'record',
            default_value='',
            description='New folder for a bag with the images and all that the node says. Empty: none.',
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
            description='Stay after the end of the bag, until Ctrl-C.',
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='true',
            choices=SWITCH,
            description='Publish the times of the bag on /clock, and live by them.',
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
            description='Weights of the network: a name such as compact, or a file. Empty: as params_file says.',
        ),
        DeclareLaunchArgument(
            'device',
            default_value='',
            description='Where the network runs: auto, cpu, cuda or cuda:N. Empty: as params_file says.',
        ),
        DeclareLaunchArgument(
            'queue',
            default_value='',
            choices=['', 'newest', 'all'],
            description='Track the newest image, or every one that arrives. Empty: as params_file says.',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Least severe messages to log.',
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
