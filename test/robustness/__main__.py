# SPDX-License-Identifier: MIT
"""Robustness trials of the node: dying processes, slow tracking, malformed requests and images.

    . tools/env.sh && cd test
    python -m robustness restarts --times 200 --json restarts.json
    python -m robustness age --seconds 60 --json age.json
    python -m robustness fuzz --times 1000 --json fuzz.json

Real processes over DDS, in a separate ROS domain, with config/fastdds.xml. Events are drawn from
`--seed`. Exit code 1 if a bar is missed; docs/robustness.md describes trials and bars.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from xmem_ros.node.middleware import profile_environment
from xmem_ros.threads import wait_asleep

TESTS = Path(__file__).resolve().parents[1]

wait_asleep()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trials = whole.add_subparsers(dest='trial', required=True)
    restarts = trials.add_parser('restarts', help='kill camera, consumer and node at random; masks return within 2 s')
    restarts.add_argument('--times', type=int, default=200, help='kills (default: %(default)s)')
    restarts.add_argument('--rate', type=float, default=30.0, help='images per second (default: %(default)s)')
    age = trials.add_parser('age', help='a tracker slower than the camera: no result older than two steps')
    age.add_argument('--seconds', type=float, default=60.0, help='duration (default: %(default)s)')
    age.add_argument('--step', type=float, default=100.0, help='duration of a step, ms (default: %(default)s)')
    age.add_argument('--rate', type=float, default=30.0, help='images per second (default: %(default)s)')
    fuzz = trials.add_parser(
        'fuzz', help='malformed requests and images: all refused with a reason, good frames unaffected'
    )
    fuzz.add_argument('--times', type=int, default=1000, help='malformed inputs per run (default: %(default)s)')
    fuzz.add_argument(
        '--transport',
        choices=('raw', 'compressed', 'both'),
        default='both',
        help='image transport (default: %(default)s)',
    )
    for trial in (restarts, age, fuzz):
        trial.add_argument('--seed', type=int, default=0, help='seed of the events (default: %(default)s)')
        trial.add_argument('--device', default='auto', help='(default: %(default)s)')
        trial.add_argument('--size', type=int, default=120, help='working size [px] (default: %(default)s)')
        trial.add_argument('--default-dds', action='store_true', help='Fast DDS without config/fastdds.xml')
        trial.add_argument('--json', type=Path, metavar='FILE', help='write the results to this file')
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Run a trial; returns the exit code."""
    whole = parser()
    args = whole.parse_args(arguments)
    if getattr(args, 'times', 1) < 1:
        whole.error('--times is to be 1 at least')
    # Processes would inherit an ignored SIGINT from a shell that starts this in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # a separate graph: another node xmem would respond too
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if not args.default_dds:
        os.environ.update(profile_environment(TESTS.parent))
    # the processes of a trial are modules of this package
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (str(TESTS), os.environ.get('PYTHONPATH'))))
    if args.trial == 'restarts':
        from robustness.restarts import run
    elif args.trial == 'age':
        from robustness.age import run
    else:
        from robustness.fuzz import run
    return run(args)


if __name__ == '__main__':
    sys.exit(main())
