# SPDX-License-Identifier: MIT
"""Start, lifecycle and end of the real process."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
import rclpy
import torch
from node_harness import NodeProcess, mask_seed, wait_until
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node.node import XMemNode
from xmem_ros.node.rclpy_workarounds import guard_services

FRAME, TRUTH = RenderedScene(objects=2)[0]


@pytest.fixture
def context():
    own = rclpy.Context()
    rclpy.init(context=own)
    yield own
    rclpy.shutdown(context=own)


def refused(parameters=None, arguments=()):
    """Start a node that cannot start; return its exit code and output."""
    process = NodeProcess(parameters, arguments)
    try:
        return process.exit_code(), process.output
    finally:
        process.close()


@pytest.mark.parametrize(
    ('parameters', 'says'),
    [
        ({'max_objects': 300}, 'max_objects is 300; allowed: 1…254'),
        ({'size': 'large'}, "size is 'large'; it must be a whole number"),
        (
            {'image_transport': 'theora'},
            "image_transport is 'theora'; allowed: raw, compressed. Transport of the images.",
        ),
        ({'memory.min_working_frames': 10}, 'must be below memory.max_working_frames'),
    ],
)
def test_invalid_parameters_end_the_node_at_once(parameters, says):
    code, output = refused(parameters)
    assert code == 2
    assert says in output
    assert 'Traceback' not in output


def test_a_file_for_the_whole_robot_does_not_end_the_node(tmp_path):
    file = tmp_path / 'robot.yaml'
    file.write_text('/**:\n  ros__parameters:\n    robot_name: r2\n    size: 96\n    memory:\n      top_n: 3\n')
    with robots.running({'autostart': False}, ['--params-file', str(file)]) as robot:
        assert robot.state() == 'unconfigured'
        assert robot.get_parameter('size') == 96
        robot.process.says("unknown parameter 'memory.top_n' (did you mean 'memory.top_k'?)")
        robot.process.says("unknown parameter 'robot_name'")


def test_strict_parameters_name_each_unknown_one_and_end_the_node(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text('/**:\n  ros__parameters:\n    weigths: compact\n    memory:\n      top_n: 3\n')
    code, output = refused({'strict_parameters': True}, ['--params-file', str(file)])
    assert code == 2
    assert "unknown parameter 'memory.top_n' (did you mean 'memory.top_k'?)" in output
    assert "unknown parameter 'weigths' (did you mean 'weights'?)" in output
    assert 'Traceback' not in output


def test_an_unknown_option_ends_the_node_with_the_known_ones():
    process = NodeProcess(options=['--camera-names', 'front'])
    assert process.exit_code() == 2
    assert '--cameras NAME' in process.output
    process = NodeProcess(options=['--cameras', 'front', 'left eye'])
    assert process.exit_code() == 2
    assert "--cameras has 'left eye'; allowed: letters" in process.output


def test_a_parameter_file_that_is_not_yaml_ends_the_node_with_a_message(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text('/**:\n  ros__parameters: [\n')
    code, output = refused(arguments=['--params-file', str(file)])
    assert code == 2
    assert 'mine.yaml' in output
    assert 'Traceback' not in output


def test_unknown_weights_end_the_node_with_the_known_names(tmp_path):
    code, output = refused({'weights': 'gigantic'})
    assert code == 1
    assert "unknown weights 'gigantic'; give a name (bundled: compact" in output
    code, output = refused({'weights': str(tmp_path / 'absent.pth')})
    assert code == 1
    assert 'no such weights file; give a name (bundled: compact' in output


def test_a_checkpoint_of_another_model_ends_the_node(tmp_path):
    file = tmp_path / 'other.pth'
    torch.save({'layer.weight': torch.zeros(2, 2)}, file)
    code, output = refused({'weights': str(file)})
    assert code == 1
    assert 'not the weights of an XMem network' in output
    assert 'Traceback' not in output


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has CUDA')
def test_a_missing_cuda_device_is_an_error():
    code, output = refused({'device': 'cuda'})
    assert code == 1
    assert 'finds 0 CUDA device(s)' in output
    assert 'use device cpu or auto' in output


def test_the_node_leaves_the_graph_at_its_end_with_little_cpu_time():
    with robots.running({'size': 64}, process_of=NodeProcess) as robot:
        robot.show(FRAME)
        process = robot.process.process
        before, children = work_of(process.pid), os.times()
        assert robot.process.interrupt() == 0
        after = os.times()
        spent = after.children_user + after.children_system - children.children_user - children.children_system - before
        assert spent < 0.5  # 0.2 s of CPU time; finalising an interpreter with torch takes 0.8 s
        # a node that leaves without a goodbye is seen until its lease ends, 20 s later
        name = ('xmem', robot.namespace)
        wait_until(lambda: name not in robot.node.get_node_names_and_namespaces(), 'the node to be gone', 10)
        assert 'Traceback' not in robot.process.output


def work_of(pid):
    """Return the CPU time of a process [s]."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_repeated_interrupts_print_no_traceback():
    with robots.running({'size': 64}, process_of=NodeProcess) as robot:
        robot.show(FRAME)
        process = robot.process.process
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        assert process.returncode == 0
        assert 'Traceback' not in robot.process.output


def test_the_lifecycle_leads_from_unconfigured_to_active_and_back():
    with robots.running({'size': 64, 'autostart': False, 'max_objects': 4}) as robot:
        labels = robot.listen(Image, '~/labels')
        objects = robot.listen(TrackedObjectArray, '~/objects')
        assert robot.state() == 'unconfigured'
        for answer in (robot.seed(mask_seed(TRUTH == 1)), robot.remove(1), robot.reset()):
            assert not answer.success
            assert 'take the transitions configure and activate' in answer.message

        assert robot.set_parameter('weights', 'gigantic').successful
        assert not robot.change_state('configure')
        assert robot.state() == 'unconfigured'
        assert "the last attempt failed: unknown weights 'gigantic'" in robot.reset().message
        assert robot.set_parameter('weights', 'compact').successful
        assert robot.set_parameter('max_objects', 2).successful

        assert robot.change_state('configure')
        assert robot.state() == 'inactive'
        assert 'take the transition activate' in robot.seed(mask_seed(TRUTH == 1)).message

        assert robot.change_state('activate')
        robot.wait_camera()
        robot.wait_matched('~/labels')
        robot.show_and_wait(FRAME, labels)
        assert robot.seed(mask_seed(TRUTH == 1), mask_seed(TRUTH == 2)).success
        assert 'raise max_objects' in robot.seed(mask_seed(TRUTH == 1)).message
        robot.show_and_wait(FRAME, labels)

        assert robot.change_state('deactivate')
        assert robot.state() == 'inactive'
        wait_until(lambda: not robot.images.get_subscription_count(), 'the end of the subscription')
        assert not robot.reset().success

        assert robot.change_state('activate')
        robot.wait_camera()
        sent = robot.show_and_wait(FRAME, labels)
        wait_until(lambda: objects[-1].header == sent.header, 'objects')
        assert [item.id for item in objects[-1].objects] == [1, 2]  # kept over the pause

        assert robot.change_state('deactivate')
        assert robot.change_state('cleanup')
        assert robot.state() == 'unconfigured'
        wait_until(lambda: not robot.node.count_publishers(f'{robot.prefix}/object_1/mask'), 'the end of its topics')
        assert not robot.node.count_publishers(f'{robot.prefix}/labels')

        assert robot.change_state('configure')
        assert robot.change_state('activate')
        robot.wait_camera()
        robot.wait_matched('~/labels')
        sent = robot.show_and_wait(FRAME, labels)
        wait_until(lambda: objects[-1].header == sent.header, 'objects')
        assert objects[-1].objects == []
        assert list(robot.seed(mask_seed(TRUTH == 2)).ids) == [1]


@pytest.fixture(scope='module')
def robot():
    """A node with the parameters of config/track.yaml."""
    file = Path(__file__).resolve().parents[2] / 'config' / 'track.yaml'
    with robots.running(arguments=['--params-file', str(file)], process_of=NodeProcess) as robot:
        yield robot


def test_the_node_starts_with_config_track_yaml(robot):
    assert robot.get_parameter('memory.top_k') == 30
    assert robot.get_parameter('max_objects') == 16


def test_no_request_ends_the_node(robot):
    from lifecycle_msgs.srv import ChangeState, GetState
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters, SetParametersAtomically

    wrong = Parameter(name='min_score', value=ParameterValue(type=42))
    request = SetParameters.Request(parameters=[wrong])
    answer = robot.call(SetParameters, '~/set_parameters', request)
    assert [result.successful for result in answer.results] == [False]
    assert '42' in answer.results[0].reason
    request = SetParametersAtomically.Request(parameters=[wrong])
    answer = robot.call(SetParametersAtomically, '~/set_parameters_atomically', request)
    assert not answer.result.successful
    assert '42' in answer.result.reason
    change = ChangeState.Request()
    for transition in (3, 200):  # activate, while active, and an unknown one
        change.transition.id = transition
        assert not robot.call(ChangeState, '~/change_state', change).success
    state = robot.call(GetState, '~/get_state', GetState.Request()).current_state.label
    assert state == 'active'
    assert robot.process.process.poll() is None


# After the others with this node.
def test_sigterm_ends_the_node_cleanly(robot):
    robot.show(FRAME)
    assert robot.process.interrupt(signal.SIGTERM) == 0
    assert 'Traceback' not in robot.process.output


class StuckProcess(NodeProcess):
    """A process that hangs in C code while it holds the interpreter's lock."""

    program = (
        '-c',
        'import ctypes; from xmem_ros.node import main, process; '
        'process.XMemNode.destroy_node = lambda self: ctypes.PyDLL(None).sleep(600); main.main()',
    )


def test_a_hanging_shutdown_is_killed_and_prints_its_stack():
    process = StuckProcess({'device': 'cpu', 'size': 64})
    try:
        process.says('active: waiting for images', robots.START_S)
        assert process.interrupt() == 1
        assert 'Timeout' in process.output
        assert 'process.py", line' in process.output
    finally:
        process.close()


def test_an_exception_from_rclpy_gives_a_failed_response(context):
    """rclpy of Humble and Jazzy raises for invalid transitions."""
    node = rclpy.create_node('guarded', context=context)

    def fail(request, response):
        response.success = True
        raise RuntimeError('not from here')

    service = node.create_service(Trigger, '~/fail', fail)
    guard_services(node)
    assert not service.callback(Trigger.Request(), Trigger.Response()).success
    node.destroy_node()


def test_a_failed_configuration_leaves_no_publisher_behind(context):
    override = 'qos_overrides./xmem/overlay.publisher.reliability:=nonsense'
    node = XMemNode(context=context, cli_args=['--ros-args', '-p', override, '-p', 'device:=cpu'])
    before = {publisher.topic_name for publisher in node.publishers}
    for _ in range(2):
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert sorted(publisher.topic_name for publisher in node.publishers) == sorted(before)
    assert 'nonsense' in node.fault
    node.close()
    node.destroy_node()
