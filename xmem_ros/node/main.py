# SPDX-License-Identifier: MIT
"""Run the node: `ros2 run xmem_ros xmem_node`, or `python -m xmem_ros.node.main`."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import TransitionCallbackReturn

from xmem_ros.errors import ParameterError
from xmem_ros.node.node import XMemNode
from xmem_ros.node.rclpy_workarounds import PatientExecutor, RCLError, forward_logs_to
from xmem_ros.outside_text import say
from xmem_ros.stream.fair_lock import FairLock
from xmem_ros.threads import wait_asleep

THREADS = 6  # a node: images, three services, timers, lifecycle and parameters
SUCCESS = TransitionCallbackReturn.SUCCESS
STOP_TIMEOUT_S = 3.0  # for the current frame and the current calls to finish
EXIT_TIMEOUT_S = 9.0  # launch kills 10 s after its first signal


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the node and end the process with the exit code of `run`.

    The process ends by `os._exit`, without finalising the interpreter. Finalisation collects
    everything that torch has made, several times. That takes most of a second, and more than ten
    seconds on a busy machine; launch takes the node for hung after five.
    """
    code = run(arguments)
    gc.collect()  # reference cycles of rclpy hold the participant; others would see the node for 20 s
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM.

    Returns:
        The exit code:

        - 0: ended by a signal.
        - 1: `autostart` is on and no node could be configured and activated.
        - 2: parameters are unknown or not allowed.

        If shutting down takes longer than `EXIT_TIMEOUT_S`, the process prints the stack of each
        thread and ends with code 1.
    """
    wait_asleep()
    try:
        rclpy.init(args=sys.argv if arguments is None else ['xmem_node', *arguments])
        nodes = _make_nodes()
    except ParameterError as error:
        say(f'xmem_node: parameters refused: {error}', file=sys.stderr)
        return 2
    except RuntimeError as error:  # rclpy's: unreadable arguments or parameter file
        say(f'xmem_node: cannot start: {error}', file=sys.stderr)
        return 2
    forward_logs_to(nodes[0].get_logger())
    executor = PatientExecutor(num_threads=THREADS * len(nodes))
    try:
        return _run(nodes, executor)
    finally:
        for node in nodes:
            node.close(STOP_TIMEOUT_S)
        if _shut_down(executor):
            for node in nodes:
                node.destroy_node()
            rclpy.try_shutdown()
        # Otherwise a callback is still using the nodes.


def _make_nodes() -> list[XMemNode]:
    """Create one node, or one for each of the parameter `cameras` in a namespace of its name."""
    node = XMemNode()
    cameras = node.parameters.cameras
    if not cameras:
        return [node]
    from xmem_ros.tracker.engine import Engines  # imports torch, which takes seconds

    namespace = node.get_namespace().rstrip('/')
    node.destroy_node()
    del node
    gc.collect()  # the node is part of a reference cycle and stays in the graph until it is collected
    engines, device_lock = Engines(len(cameras)), FairLock()
    # Arguments of a node precede those of the process, which may hold __ns.
    namespaces = [['--ros-args', '-r', f'__ns:={namespace}/{camera}'] for camera in cameras]
    return [XMemNode(engines=engines, device_lock=device_lock, cli_args=arguments) for arguments in namespaces]


def _run(nodes: list[XMemNode], executor: PatientExecutor) -> int:
    for node in nodes:
        executor.add_node(node)
    try:
        autostarted = [node for node in nodes if node.parameters.autostart]
        started = [_start(node) for node in autostarted]  # a failed node leaves the others alone
        if autostarted and not any(started) and rclpy.ok():
            return 1
        _spin(executor, nodes[0].get_logger())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # Another Ctrl-C must not interrupt the shutdown. SIGTERM and SIGKILL keep their effect.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # DDS may wait forever for shared memory that a killed process left in a bad state.
        faulthandler.dump_traceback_later(EXIT_TIMEOUT_S, exit=True)
    return 0


def _shut_down(executor: PatientExecutor) -> bool:
    """Shut the executor down; return whether its threads ended in time.

    rclpy's own shutdown waits for the threads forever, whatever its timeout.
    """
    thread = threading.Thread(target=executor.shutdown, kwargs={'timeout_sec': STOP_TIMEOUT_S}, daemon=True)
    thread.start()
    thread.join(STOP_TIMEOUT_S)
    return not thread.is_alive()


def _spin(executor: PatientExecutor, log: Any) -> None:
    while rclpy.ok():
        try:
            executor.spin()
        except InvalidHandle:
            # A transition or timer destroyed a publisher or subscription with QoS events while this
            # thread built its wait set or before it took from it (ros2/rclpy#1142, open). Its
            # callback group may stay busy (ros2/rclpy#1206, open), so each has a group of its own.
            continue
        except ExternalShutdownException:
            raise
        except Exception as error:
            if isinstance(error, RCLError) and not rclpy.ok():
                return  # a signal ended the context while the wait set was built
            # A callback of rclpy's. One request, message or event is lost; the objects are not.
            log.error(
                f'a callback of rclpy failed; the node continues: {traceback.format_exc()}', throttle_duration_sec=5.0
            )
            time.sleep(0.1)


def _start(node: XMemNode) -> bool:
    """Configure and activate; return whether both succeeded. The node logs the reason if not."""
    return node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS


if __name__ == '__main__':
    main()
