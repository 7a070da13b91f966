# SPDX-License-Identifier: MIT
"""`xmem-ros regress`: regression tests on recordings with reference masks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from xmem_ros.regress.results import Result

NOT_MET = 1
EPILOG = """\
examples:
  xmem-ros regress suite.yaml --update-baseline      # store the current figures
  xmem-ros regress suite.yaml --junit results.xml    # compare with the stored ones

exit codes:
  0  all checks passed
  1  a check failed, or a case could not run
  2  the suite or the command is wrong; no case was run

Keys of a suite, figures, and a CI job: docs/regress.md
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'regress',
        help='run regression tests on recordings with reference masks',
        description='Track the recordings of a suite, offline or through a node, and compare the masks with a\n'
        'reference. Check the figures against the limits of the suite and against a stored baseline.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('suite', type=Path, metavar='SUITE.yaml', help='cases to run, and their limits')
    parser.add_argument(
        '--case', action='append', default=[], metavar='NAME', help='run only this case; repeat it for several cases'
    )
    parser.add_argument(
        '--baseline', type=Path, metavar='FILE', help='stored figures to compare with (default: as named in the suite)'
    )
    parser.add_argument(
        '--update-baseline', action='store_true', help='store the figures of this run as baseline, better or worse'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all results as JSON')
    parser.add_argument('--junit', type=Path, metavar='FILE', help='write JUnit XML, for CI servers')
    parser.add_argument('--html', type=Path, metavar='FILE', help='write a report with the worst frames')
    parser.add_argument('--dry-run', action='store_true', help='check the suite, then exit')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.errors import ParameterError
    from xmem_ros.regress.files import check_writable
    from xmem_ros.regress.results import read_baseline, write_baseline
    from xmem_ros.regress.run import run_cases
    from xmem_ros.regress.suite import chosen, read_suite
    from xmem_ros.regress.table import table

    suite = read_suite(args.suite)
    cases = chosen(suite, args.case)
    if args.html:
        from xmem_ros.evaluation.report import check_report  # imports torch

        check_report()  # before minutes of tracking
    path = args.baseline or suite.baseline
    if args.update_baseline and path is None:
        raise ParameterError(
            f'--update-baseline requires a file: give --baseline FILE, or the key baseline in {args.suite}'
        )
    own = None if args.baseline else suite.baseline
    if args.update_baseline and own and not own.resolve().is_relative_to(suite.path.parent.resolve()):
        # the suite may be somebody else's
        raise ParameterError(
            f'{suite.path}: baseline is {path}, outside the folder of the suite; only a file in it is written: name '
            'one, or give --baseline FILE'
        )
    check_writable(filter(None, (args.json, args.junit, args.html, path if args.update_baseline else None)))
    baseline = None
    if path is not None and (path.exists() or not args.update_baseline):
        baseline = read_baseline(path)
    if args.dry_run:
        say(f'valid: {args.suite}, {len(cases)} cases')
        return 0
    results = run_cases(cases, baseline, pictures=bool(args.html))
    say(table(results))
    known = {case.name for case in suite.cases}
    if unknown := sorted(set(baseline or {}) - known):
        say(f'{path}: cases that are not in the suite: {", ".join(unknown)}')
    if any(result.incomplete_baseline for result in results) and not args.update_baseline:
        say(f'{path}: cases or figures are missing in the baseline; --update-baseline adds them')
    _write(args, results)
    if args.update_baseline:
        assert path is not None
        kept = {name: figures for name, figures in (baseline or {}).items() if name in known}
        updated = write_baseline(path, results, kept)
        state = f'updated for {", ".join(updated)}' if updated else 'not written, as no case has figures'
        say(f'{path}: {state}')
    return _exit_code(results, ignore_baseline=args.update_baseline)


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


def _exit_code(results: list[Result], *, ignore_baseline: bool) -> int:
    """Return 1 for an error or a failed check; `ignore_baseline`: it is being replaced."""
    for result in results:
        if result.error or any(
            not check.met and not (ignore_baseline and check.against == 'baseline') for check in result.checks
        ):
            return NOT_MET
    return 0
