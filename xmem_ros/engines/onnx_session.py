# SPDX-License-Identifier: MIT
"""Sessions of ONNX Runtime, and the build of TensorRT engines in a process of its own.

Most releases of ONNX Runtime let no other Python thread work while they load a model
(microsoft/onnxruntime#27063). Loading builds TensorRT's engines, which takes minutes. A node would
be deaf to services and signals. A child process builds them instead, and the session that is loaded
afterwards finds them in the cache.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from xmem_ros.child_process import Child

MODULE = 'xmem_ros.engines.onnx_session'
POLL_S = 0.1

log = logging.getLogger(__name__)


def open_session(
    runtime: Any, *, model: str, objects: int, axis: str, threads: int, providers: list[tuple[str, dict[str, Any]]]
) -> Any:
    """Load a model.

    Arguments:
        runtime: the module onnxruntime.
        model: path.
        objects: size of its axis of objects.
        axis: name of that axis.
        threads: number of threads on the CPU.
        providers: names and options, best first.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    # waiting threads sleep, as in torch; see `threads`
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.add_free_dimension_override_by_name(axis, objects)
    return runtime.InferenceSession(model, options, providers=providers)


def build_engines(**arguments: Any) -> bool:
    """Load a model in a child process, so that its engines are in the cache.

    arguments: as for `open_session`, which the child calls.

    Returns:
        Whether that succeeded. If not, the reason is logged.
    """
    with tempfile.TemporaryDirectory(prefix='xmem_ros_') as folder:
        try:
            with Child(MODULE, [json.dumps(arguments)], Path(folder) / 'build.log') as child:
                while child.exit_code is None:
                    time.sleep(POLL_S)
                if child.exit_code == 0:
                    return True
                log.warning('no engine was built in a process of its own:\n%s', child.tail())
        except OSError as error:
            log.warning('no engine can be built in a process of its own: %s', error)
    return False


def main() -> None:
    """Load the model that the command line describes as JSON."""
    import onnxruntime

    open_session(onnxruntime, **json.loads(sys.argv[1]))


if __name__ == '__main__':
    main()
