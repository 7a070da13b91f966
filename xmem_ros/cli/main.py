# SPDX-License-Identifier: MIT
"""`xmem-ros`: the command line. Each sub-command is a module beside this one."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from xmem_ros.errors import RunError, XMemError, printable
from xmem_ros.host_memory import keep_large_blocks
from xmem_ros.threads import wait_asleep

COMMANDS = ('track', 'replay', 'web', 'evaluate', 'regress', 'train', 'export', 'weights', 'doctor')
FAILED = 1
USAGE_ERROR = 2  # the exit code for whatever the user can put right
INTERRUPTED = 130


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all sub-commands; each sets `run`, which takes the arguments and returns the exit code."""
    parser = argparse.ArgumentParser(prog='xmem-ros', description='Follow objects through video, pixel by pixel.')
    commands = parser.add_subparsers(title='commands', dest='command', required=True, metavar='COMMAND')
    for name in COMMANDS:
        importlib.import_module(f'xmem_ros.cli.{name}').add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 `track` broke off or `regress` found something worse, 2 something to put right, 130 interrupted.
    """
    args = make_parser().parse_args(arguments)
    wait_asleep()
    if args.command in ('track', 'evaluate', 'regress'):
        keep_large_blocks()
    try:
        return int(args.run(args))
    except (XMemError, OSError) as error:
        print(printable(f'xmem-ros {args.command}: error: {error}'), file=sys.stderr)
        return FAILED if isinstance(error, RunError) else USAGE_ERROR
    except KeyboardInterrupt:
        print(f'xmem-ros {args.command}: interrupted', file=sys.stderr)
        return INTERRUPTED


if __name__ == '__main__':
    sys.exit(main())
