# SPDX-License-Identifier: MIT
"""`xmem-ros regress`: track recordings whose masks are known, and tell whether that has become worse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from xmem_ros.regress.results import Result

NOT_MET = 1
EPILOG = """\
Every key of a suite, every figure, and a job for CI: docs/regress.md. Exit code: 0 everything held, 1 something became
worse, did not hold or failed, 2 something in the suite or the command to put right; nothing was run then.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'regress',
        help='track recordings whose masks are known, and tell whether that has become worse',
        description='Track the recordings of a suite, offline or through a node, compare the masks with a reference, '
        'and check the figures against what the suite expects and what a stored baseline had.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('suite', type=Path, metavar='SUITE.yaml', help='what is run, and what has to hold')
    parser.add_argument(
        '--case', action='append', default=[], metavar='NAME', help='run this case only; may be given several times'
    )
    parser.add_argument('--baseline', type=Path, metavar='FILE', help="figures to compare with (default: the suite's)")
    parser.add_argument(
        '--update-baseline', action='store_true', help='write what was found as the baseline, better or worse'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything that was found here')
    parser.add_argument('--junit', type=Path, metavar='FILE', help='write JUnit XML, for CI servers')
    parser.add_argument('--html', type=Path, metavar='FILE', help='write a page with the worst frames drawn')
    parser.add_argument('--dry-run', action='store_true', help='only check that the suite is well-formed')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.errors import ParameterError
    from xmem_ros.evaluation.report import check_report
    from xmem_ros.regress.files import check_writable
    from xmem_ros.regress.results import read_baseline, write_baseline
    from xmem_ros.regress.run import run_cases
    from xmem_ros.regress.suite import chosen, read_suite
    from xmem_ros.regress.table import table

    suite = read_suite(args.suite)
    cases = chosen(suite, args.case)
    if args.html:
        check_report()  # before minutes of tracking
    path = args.baseline or suite.baseline
    if args.update_baseline and path is None:
        raise ParameterError(f'--update-baseline: name the file with --baseline, or as baseline in {args.suite}')
    check_writable(filter(None, (args.json, args.junit, args.html, path if args.update_baseline else None)))
    baseline = None
    if path is not None and (path.exists() or not args.update_baseline):
        baseline = read_baseline(path)
    if args.dry_run:
        say(f'well-formed: {args.suite}, {len(cases)} cases')
        return 0
    results = run_cases(cases, baseline, pictures=bool(args.html))
    say(table(results))
    known = {case.name for case in suite.cases}
    if gone := sorted(set(baseline or {}) - known):
        say(f'{path}: has cases that the suite has not: {", ".join(gone)}')
    _write(args, results)
    if args.update_baseline:
        assert path is not None
        kept = {name: figures for name, figures in (baseline or {}).items() if name in known}
        fresh = write_baseline(path, results, kept)
        said = f'written anew for {", ".join(fresh)}' if fresh else 'not written, as no case has figures'
        say(f'{path}: {said}')
    return _exit_code(results, accepted=args.update_baseline)


def _write(args: argparse.Namespace, results: list[Result]) -> None:
    from xmem_ros.regress.junit import write_junit
    from xmem_ros.regress.report import write_report
    from xmem_ros.regress.results import write_json

    if args.json:
        write_json(args.json, args.suite, results)
    if args.junit:
        write_junit(args.junit, args.suite.stem, results)
    if args.html:
        write_report(args.html, args.suite.stem, results)


def _exit_code(results: list[Result], *, accepted: bool) -> int:
    """1 where something did not hold; what is worse than a baseline that is being replaced is accepted."""
    for result in results:
        if result.error or any(
            not check.met and not (accepted and check.against == 'baseline') for check in result.checks
        ):
            return NOT_MET
    return 0
