# SPDX-License-Identifier: MIT
"""What the library says by Python's `logging`, in the log of the node."""

from __future__ import annotations

import logging
from typing import Any

from xmem_ros.outside_text import for_log


class NodeLogHandler(logging.Handler):
    """Hands records on to a logger of rclpy.

    Arguments:
        logger: what `Node.get_logger` gives.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, as severe as it is."""
        try:
            text = for_log(self.format(record))
            # a line for each: rclpy refuses another severity from the same place in the code
            if record.levelno >= logging.ERROR:
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            elif record.levelno >= logging.INFO:
                self._logger.info(text)
            else:
                self._logger.debug(text)
        except Exception:  # as handlers do: what is said must not end what is done
            self.handleError(record)


def log_to(logger: Any) -> None:
    """From now on, what the package logs goes to a logger of rclpy; to be called once in a process."""
    package = logging.getLogger('xmem_ros')
    package.addHandler(NodeLogHandler(logger))
    package.setLevel(logging.DEBUG)  # the logger of rclpy drops what is not to be heard
    package.propagate = False
