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
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import TransitionCallbackReturn

from xmem_ros.errors import ParameterError
from xmem_ros.node.node import XMemNode
from xmem_ros.node.rclpy_workarounds import PatientExecutor, log_to
from xmem_ros.outside_text import say
from xmem_ros.stream.fair_lock import Turns
from xmem_ros.threads import wait_asleep

THREADS = 6  # images, three services, timers, lifecycle and parameters
SUCCESS = TransitionCallbackReturn.SUCCESS
END_S = 3.0  # that ending waits for a frame or a call in hand
END_AT_MOST_S = 9.0  # that ending takes; launch kills 10 s after its first signal


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the node, and end this process with the exit code of `run`.

    It ends without taking the interpreter down: Python would go through everything that torch has made, several times
    over, which takes most of a second of a processor, and more than ten seconds on a busy machine. Whoever asked the
    node to end takes it for hung by then; launch waits five seconds.
    """
    code = run(arguments)
    gc.collect()  # rclpy's cycles hold the participant; without its goodbye others would see the node for 20 s
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM.

    Returns:
        The exit code: 0; 1 where the node was to start by itself and could not be configured; 2 where its parameters
        are unknown or not allowed. Ending takes `END_AT_MOST_S` at most: after that the process ends with code 1 and
        prints where each of its threads was.
    """
    wait_asleep()
    try:
        rclpy.init(args=sys.argv if arguments is None else ['xmem_node', *arguments])
        nodes = _make_nodes()
    except ParameterError as error:
        say(f'xmem_node: parameters refused: {error}', file=sys.stderr)
        return 2
    except RuntimeError as error:  # rclpy's own: arguments or a file of parameters that it cannot read
        say(f'xmem_node: cannot start: {error}', file=sys.stderr)
        return 2
    log_to(nodes[0].get_logger())
    executor = PatientExecutor(num_threads=THREADS * len(nodes))
    try:
        return _run(nodes, executor)
    finally:
        for node in nodes:
            node.close(END_S)
        if _ended(executor):
            for node in nodes:
                node.destroy_node()
            rclpy.try_shutdown()
        # otherwise a callback is still at work with what would be destroyed


def _make_nodes() -> list[XMemNode]:
    """One node, or with the parameter `cameras` one for each, in a namespace below that of the one."""
    node = XMemNode()
    cameras = node.parameters.cameras
    if not cameras:
        return [node]
    from xmem_ros.tracker.engine import Engines  # imports torch, which takes seconds

    namespace = node.get_namespace().rstrip('/')
    node.destroy_node()
    del node
    gc.collect()  # it is part of a cycle, and in the graph until that goes
    engines, turns = Engines(len(cameras)), Turns()
    # arguments of a node's own come before those of the process, which may hold __ns
    spaces = [['--ros-args', '-r', f'__ns:={namespace}/{camera}'] for camera in cameras]
    return [XMemNode(engines=engines, turns=turns, cli_args=arguments) for arguments in spaces]


def _run(nodes: list[XMemNode], executor: PatientExecutor) -> int:
    for node in nodes:
        executor.add_node(node)
    try:
        wanted = [node for node in nodes if node.parameters.autostart]
        started = [_start(node) for node in wanted]  # one that cannot leaves the others alone
        if wanted and not any(started) and rclpy.ok():
            return 1
        _spin(executor, nodes[0].get_logger())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # It ends now; another Ctrl-C would only break that off halfway. SIGTERM and SIGKILL are as they were.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # DDS may wait without end for shared memory that a stopped or killed process left in a bad state.
        faulthandler.dump_traceback_later(END_AT_MOST_S, exit=True)
    return 0


def _ended(executor: PatientExecutor) -> bool:
    """Shut the executor down; returns whether its threads have ended, which rclpy would wait for without end."""
    thread = threading.Thread(target=executor.shutdown, kwargs={'timeout_sec': END_S}, daemon=True)
    thread.start()
    thread.join(END_S)
    return not thread.is_alive()


def _spin(executor: PatientExecutor, log: Any) -> None:
    while rclpy.ok():
        try:
            executor.spin()
        except InvalidHandle:
            # A transition or a timer destroyed a publisher or subscription that has QoS events while this thread built
            # its wait set or before it took from it, which rclpy does not guard against. The callback group of what was
            # destroyed may stay busy for good; so each has a group of its own.
            continue
        except ExternalShutdownException:
            raise
        except Exception as error:
            if isinstance(error, RCLError) and not rclpy.ok():
                return  # a signal ended the context while this thread built its wait set
            # A callback of rclpy's own. One request, message or event is lost; the objects are not.
            log.error(
                f'something in rclpy failed; the node goes on: {traceback.format_exc()}', throttle_duration_sec=5.0
            )
            time.sleep(0.1)


def _start(node: XMemNode) -> bool:
    """Configure and activate; the node's log says why where that fails."""
    return node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS


if __name__ == '__main__':
    main()
