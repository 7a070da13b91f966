# SPDX-License-Identifier: MIT
"""Entry point of `xmem-ros`: parser, exit codes and error output."""

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from xmem_ros.errors import RunError, Setting, XMemError, with_setting
from xmem_ros.host_memory import keep_large_blocks
from xmem_ros.outside_text import for_log, for_terminal, say
from xmem_ros.threads import wait_asleep

COMMANDS = ('track', 'replay', 'web', 'evaluate', 'regress', 'train', 'export', 'weights', 'doctor')
FAILED = 1
USAGE_ERROR = 2  # every fault that the user can correct
INTERRUPTED = 130
FAULT = 70  # an internal error; EX_SOFTWARE of sysexits.h
OPTIONS = {
    Setting.IMAGE_TOPIC: '--image-topic',
    Setting.SEEDS_TOPIC: '--seeds-topic',
    Setting.SEEDS: '--seed',
    Setting.TIMEOUT: '--timeout',
    Setting.DESTINATION: '--out',
    Setting.RESTART: '--restart',
    Setting.FORMAT: '--format',
    Setting.REMAP: '--remap FROM:=TO',
    Setting.NEW_BASELINE: '--update-baseline',
    Setting.DATA: '--data',
    Setting.ADDRESS: '--host, --port',
    Setting.TOKEN_FILE: '--token-file',
}
"""Setting that would correct an error → option."""
TRACEBACK = 'XMEM_ROS_TRACEBACK'  # environment variable: print the traceback of an internal error


class _Parser(argparse.ArgumentParser):
    """Parser that escapes user input in its errors, which argparse repeats verbatim."""

    def error(self, message: str) -> NoReturn:
        super().error(for_log(message))


class _Lines(logging.Formatter):
    """Formatter of the library's log: one safe line for each record."""

    def format(self, record: logging.LogRecord) -> str:
        return for_log(super().format(record))


def make_parser() -> argparse.ArgumentParser:
    """Build the parser; each sub-command sets `run`: arguments → exit code."""
    parser = _Parser(
        prog='xmem-ros',
        description='Video object segmentation with XMem: track objects through recordings, live topics and data sets.',
        epilog='Run "xmem-ros COMMAND --help" for the options of a command.',
    )
    commands = parser.add_subparsers(title='commands', dest='command', required=True, metavar='COMMAND')
    for name in COMMANDS:
        importlib.import_module(f'xmem_ros.cli.{name}').add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 success, 1 `track` was aborted or `regress` failed, 2 a fault that the user can correct,
    70 an internal error, 130 interrupted.
    """
    args = make_parser().parse_args(arguments)
    if logging.lastResort is not None:  # the handler to stderr without a logging configuration
        logging.lastResort.setFormatter(_Lines())
    wait_asleep()
    if args.command in ('track', 'evaluate', 'regress'):
        keep_large_blocks()
    try:
        with _interrupted_by_sigterm():
            return int(args.run(args))
    except (XMemError, OSError) as error:
        _fail(args.command, with_setting(error, OPTIONS))
        return FAILED if isinstance(error, RunError) else USAGE_ERROR
    except KeyboardInterrupt:
        say(f'xmem-ros {args.command}: interrupted', file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # an internal error; its traceback only on request
        if os.environ.get(TRACEBACK):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        _fail(
            args.command,
            f'{type(error).__name__}: {error} ({where.filename}:{where.lineno}); this is a fault of xmem_ros: please '
            f'run the command again with {TRACEBACK}=1 and report its output',
        )
        return FAULT


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that temporary files are removed."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(command: str, error: object) -> None:
    say(f'xmem-ros {command}: error: {for_terminal(error)}', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
