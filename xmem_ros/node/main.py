# SPDX-License-Identifier: MIT
"""Run the node: `ros2 run xmem_ros xmem_node`, or `python -m xmem_ros.node.main`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from xmem_ros.node.stop_request import StopRequest


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the node and end the process with the exit code of `process.run`.

    The process ends by `os._exit`, without finalising the interpreter. Finalisation would collect
    everything that torch has made, several times. That takes most of a second, and more than ten
    seconds on a busy machine; launch takes the node for hung after five. It would also wait for
    threads in the middle of a configuration, which Python cannot interrupt.
    """
    stop = StopRequest()  # before the imports, which take most of a second
    from xmem_ros import atomic
    from xmem_ros.node.process import run

    code = run(arguments, stop)
    sys.stdout.flush()
    sys.stderr.flush()
    atomic.discard_unfinished()
    os._exit(code)


if __name__ == '__main__':
    main()
