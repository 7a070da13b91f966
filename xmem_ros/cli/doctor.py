# SPDX-License-Identifier: MIT
"""`xmem-ros doctor`: what this installation has, what is wrong with it, and what to do."""

from __future__ import annotations

import argparse

from xmem_ros.outside_text import for_log, say

SOMETHING_WRONG = 2  # as for other things that the user can put right


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'doctor',
        help='what this installation has, what is wrong, what to do',
        description='Look at torch, CUDA, ROS, weights and optional packages. Exit code: 0 where nothing is wrong, '
        f'else {SOMETHING_WRONG}. What is only absent (-) is not wrong.',
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.cli.diagnose import WRONG, examine

    wrong = 0
    for finding in examine():
        wrong += finding.state == WRONG
        say(f'{finding.state:>5}  {for_log(finding.subject)}: {for_log(finding.text)}')
        if finding.remedy:
            say(f'       → {for_log(finding.remedy)}')
    say('nothing is wrong' if not wrong else f'{wrong} wrong')
    return SOMETHING_WRONG if wrong else 0
