# SPDX-License-Identifier: MIT
"""`xmem-ros doctor`: check the installation."""

from __future__ import annotations

import argparse

from xmem_ros.outside_text import for_log, say

SOMETHING_WRONG = 2  # as for every fault that the user can correct


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'doctor',
        help='check the installation',
        description='Check torch, CUDA, ROS, the weights and optional packages, and print a remedy for each fault. '
        f'Missing optional parts are marked - and do not count as faults. Exit code: 0 without faults, else '
        f'{SOMETHING_WRONG}.',
    )
    parser.add_argument('--seeder', default='', metavar='FOLDER', help='also load and run the ONNX models of a seeder')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.cli.diagnose import WRONG, examine

    wrong = 0
    for finding in examine(args.seeder):
        wrong += finding.state == WRONG
        say(f'{finding.state:>5}  {for_log(finding.subject)}: {for_log(finding.text)}')
        if finding.remedy:
            say(f'       → {for_log(finding.remedy)}')
    say('nothing is wrong' if not wrong else f'{wrong} wrong')
    return SOMETHING_WRONG if wrong else 0
