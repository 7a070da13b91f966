# SPDX-License-Identifier: MIT
"""`xmem-ros`: the command line. Each sub-command is a module beside this one."""

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from xmem_ros.errors import RunError, XMemError
from xmem_ros.host_memory import keep_large_blocks
from xmem_ros.outside_text import for_log, for_terminal, say
from xmem_ros.threads import wait_asleep

COMMANDS = ('track', 'replay', 'web', 'evaluate', 'regress', 'train', 'export', 'weights', 'doctor')
FAILED = 1
USAGE_ERROR = 2  # the exit code for whatever the user can put right
INTERRUPTED = 130
FAULT = 70  # of the program, as sysexits.h has it
TRACEBACK = 'XMEM_ROS_TRACEBACK'  # variable: set, a fault of the program shows where it is


class _Parser(argparse.ArgumentParser):
    """As argparse's, whose errors repeat what was typed as it is."""

    def error(self, message: str) -> NoReturn:
        super().error(for_log(message))


class _Lines(logging.Formatter):
    """What the library logs, on a line for each record."""

    def format(self, record: logging.LogRecord) -> str:
        return for_log(super().format(record))


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all sub-commands; each sets `run`, which takes the arguments and returns the exit code."""
    parser = _Parser(prog='xmem-ros', description='Follow objects through video, pixel by pixel.')
    commands = parser.add_subparsers(title='commands', dest='command', required=True, metavar='COMMAND')
    for name in COMMANDS:
        importlib.import_module(f'xmem_ros.cli.{name}').add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 `track` broke off or `regress` found something worse, 2 something to put right, 70 a fault of the program,
    130 interrupted.
    """
    args = make_parser().parse_args(arguments)
    if logging.lastResort is not None:  # what writes to stderr where nobody has set up logging
        logging.lastResort.setFormatter(_Lines())
    wait_asleep()
    if args.command in ('track', 'evaluate', 'regress'):
        keep_large_blocks()
    try:
        return int(args.run(args))
    except (XMemError, OSError) as error:
        _fail(args.command, error)
        return FAILED if isinstance(error, RunError) else USAGE_ERROR
    except KeyboardInterrupt:
        say(f'xmem-ros {args.command}: interrupted', file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # a fault of ours; a traceback is for those who look for it
        if os.environ.get(TRACEBACK):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        _fail(
            args.command,
            f'{type(error).__name__}: {error} ({where.filename}:{where.lineno}); this is a fault of xmem_ros: please '
            f'report it with what is printed when {TRACEBACK}=1 is set',
        )
        return FAULT


def _fail(command: str, error: object) -> None:
    say(f'xmem-ros {command}: error: {for_terminal(error)}', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
