# SPDX-License-Identifier: MIT
"""The node's process: its nodes, their executor, and an end within two seconds.

The main thread only waits for signals. One thread spins the executor, another one configures and
activates nodes with `autostart`, so that services and diagnostics answer meanwhile.
"""

from __future__ import annotations

import argparse
import faulthandler
import re
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from xmem_ros.errors import ParameterError, quoted
from xmem_ros.node.node import XMemNode
from xmem_ros.node.rclpy_workarounds import PatientExecutor, forward_logs_to
from xmem_ros.outside_text import say
from xmem_ros.stream.fair_lock import FairLock
from xmem_ros.threads import wait_asleep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.node import Node

    from xmem_ros.node.stop_request import StopRequest
    from xmem_ros.tracker.engine import Engines

THREADS = 8  # a node: images, three services, timers, lifecycle and parameters
SUCCESS = TransitionCallbackReturn.SUCCESS
STOP_TIMEOUT_S = 0.6  # for the current frames and calls to finish
HANGING_S = 5.0  # a healthy end takes less than two; launch kills 10 s after its first signal


def run(arguments: list[str] | None, stop: StopRequest) -> int:
    """Run until a request to stop.

    Returns:
        The exit code:

        - 0: ended by a signal.
        - 1: `autostart` is on and no node could be configured and activated.
        - 2: arguments or parameters are not allowed.

        If shutting down takes longer than `HANGING_S`, the process prints the stack of each thread
        and ends with code 1.
    """
    wait_asleep()
    given = sys.argv if arguments is None else ['xmem_node', *arguments]
    stop.expect_nodes()
    try:
        cameras = _cameras(remove_ros_args(given)[1:])
        rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
        nodes = _make_nodes(cameras)
    except ParameterError as error:
        say(f'xmem_node: parameters refused: {error}', file=sys.stderr)
        return 2
    except RuntimeError as error:  # rclpy's: unreadable arguments or parameter file
        say(f'xmem_node: cannot start: {error}', file=sys.stderr)
        return 2
    log = nodes[0].get_logger()
    forward_logs_to(log)
    executor = PatientExecutor(num_threads=THREADS * len(nodes))
    for node in nodes:
        executor.add_node(node)
    failed = threading.Event()
    spinning = threading.Thread(target=_spin, args=(executor, log, stop, failed), name='xmem-executor', daemon=True)
    spinning.start()
    starting = threading.Thread(target=_autostart, args=(nodes, stop, failed), name='xmem-autostart', daemon=True)
    starting.start()
    stop.wait()
    # DDS may wait forever for shared memory that a killed process left in a bad state.
    faulthandler.dump_traceback_later(HANGING_S, exit=True)
    _end(nodes, executor, spinning)
    return 1 if failed.is_set() else 0


def _end(nodes: Sequence[XMemNode], executor: PatientExecutor, spinning: threading.Thread) -> None:
    """Stop tracking and leave the ROS graph; what is still running ends with the process."""
    sys.setswitchinterval(1e-4)  # a configuration may be importing torch, which takes turns of this length
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for node in nodes:
        node.close(max(deadline - time.monotonic(), 0))
    # rclpy's shutdown waits for the threads of callbacks forever, whatever its timeout.
    closing = threading.Thread(target=executor.shutdown, kwargs={'timeout_sec': STOP_TIMEOUT_S}, daemon=True)
    closing.start()
    closing.join(max(deadline - time.monotonic(), 0.1))
    spinning.join(STOP_TIMEOUT_S)  # at once: it does not wait for callbacks
    if not spinning.is_alive():
        for node in nodes:  # a thread that still uses one gets an exception
            _leave(node)
        rclpy.try_shutdown()


def _leave(node: Node) -> None:
    """Destroy a node so that it leaves the graph at once; others would see it for 20 s.

    rclpy's objects refer to each other and hold the participant until they are collected
    (ros2/rclpy#1710). To collect all that torch has made can take ten seconds on a busy machine.
    """
    node.destroy_node()
    vars(node).clear()


def _cameras(arguments: list[str]) -> list[str]:
    """Read the command line without its ROS arguments; return the names of cameras."""
    parser = argparse.ArgumentParser(
        prog='xmem_node',
        description='Track objects in the images of a camera. Parameters and remaps follow --ros-args.',
    )
    parser.add_argument(
        '--cameras',
        nargs='+',
        default=[],
        metavar='NAME',
        help='run a node for each of several cameras, in a namespace of that name, such as /front/xmem on '
        '/front/image. They share the weights and take turns (default: one node for one camera)',
    )
    names: list[str] = parser.parse_args(arguments).cameras
    for name in names:
        if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', name):
            raise ParameterError(
                f'--cameras has {quoted(name)}; allowed: letters, digits and _, a letter first, as in ROS namespaces'
            )
        if names.count(name) > 1:
            raise ParameterError(f'--cameras has {quoted(name)} more than once; give each camera a name of its own')
    return names


def _make_nodes(cameras: Sequence[str]) -> list[XMemNode]:
    """Create one node, or one for each of several cameras."""
    if not cameras:
        return [XMemNode()]
    probe = rclpy.create_node('xmem', start_parameter_services=False)  # knows the __ns of the process
    namespace = probe.get_namespace().rstrip('/')
    _leave(probe)
    shared = SharedEngines(len(cameras))
    device_lock = FairLock()
    # Arguments of a node precede those of the process, which may hold __ns.
    namespaces = [['--ros-args', '-r', f'__ns:={namespace}/{camera}'] for camera in cameras]
    return [XMemNode(engines=shared, device_lock=device_lock, cli_args=arguments) for arguments in namespaces]


class SharedEngines:
    """The networks that several nodes share, made when the first node is configured.

    Arguments:
        cameras: number of nodes.
    """

    def __init__(self, cameras: int) -> None:
        self._cameras, self._lock = cameras, threading.Lock()
        self._engines: Engines | None = None

    def __call__(self) -> Engines:
        """Return the `Engines`; imports torch, which takes seconds."""
        from xmem_ros.tracker.engine import Engines

        with self._lock:
            self._engines = self._engines or Engines(self._cameras)
            return self._engines


def _spin(executor: PatientExecutor, log: Any, stop: StopRequest, failed: threading.Event) -> None:
    try:
        while True:
            try:
                executor.spin()
                return
            except InvalidHandle:
                # A transition or timer destroyed a publisher or subscription with QoS events while
                # this thread built its wait set or before it took from it (ros2/rclpy#1142, open).
                # Its callback group may stay busy (ros2/rclpy#1206, open), so each has its own.
                continue
            except ExternalShutdownException:
                return
            except Exception:
                if stop.requested:  # the executor's own parts are being destroyed
                    return
                # A callback of rclpy's. One request, message or event is lost; the objects are not.
                log.error(
                    f'a callback of rclpy failed; the node continues: {traceback.format_exc()}',
                    throttle_duration_sec=5.0,
                )
                time.sleep(0.1)
    finally:
        if not stop.requested:
            failed.set()
            stop.request()


def _autostart(nodes: Sequence[XMemNode], stop: StopRequest, failed: threading.Event) -> None:
    """Configure and activate the nodes with `autostart`; a failed one leaves the others alone."""
    try:
        autostarted = [node for node in nodes if node.parameters.autostart]
        started = [_start(node) for node in autostarted if not stop.requested]
    except Exception:
        if stop.requested:  # the nodes are being destroyed
            return
        nodes[0].get_logger().error(f'autostart failed: {traceback.format_exc()}')
        autostarted, started = list(nodes), []
    if autostarted and not any(started) and not stop.requested:
        failed.set()
        stop.request()


def _start(node: XMemNode) -> bool:
    """Configure and activate; return whether both succeeded. The node logs the reason if not."""
    return node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
