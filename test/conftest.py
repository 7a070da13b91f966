# SPDX-License-Identifier: MIT
"""Settings and fixtures of all tests: ROS domain, threads, slow tests, the bundled network."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# Slow tests, the longest files first. They start processes, use DDS, open a browser, train, or
# track long recordings. `make test-fast` excludes them; `make test` runs them first, so that none
# is left for the end.
SLOW = (
    'robustness',
    'offline/test_broken_off.py',
    'fuzz',
    'node',
    'replay',
    'client',
    'web',
    'demo/test_demo.py',
    'demo/test_camera.py',
    'regress/test_live.py',
    'regress/test_regress.py',
    'regress/test_input.py',
    'offline',
    'evaluation/test_passes.py',
    'evaluation/test_layouts.py',
    'evaluation/test_evaluation.py',
    'tracker/test_parity_footage.py',
    'engines',
    'training',
    'cli',
    'tracker/test_lives.py',
    'package/test_hostile_files.py',
)


def _claim_domain() -> tuple[int, socket.socket]:
    """Claim a ROS domain that no other test process of this machine uses; return it and its socket.

    An abstract socket name is released when its process ends. Up to domain 101, all ports are below
    the ephemeral range.
    """
    for domain in random.SystemRandom().sample(range(1, 102), 101):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f'\0xmem_ros-test-domain-{domain}')
        except OSError:
            claim.close()
        else:
            return domain, claim
    raise RuntimeError('all ROS domains from 1 to 101 are in use by other tests on this machine')


# Set before rclpy or torch is imported. Processes that a test starts inherit these variables, so
# they communicate with the test and with no other ROS graph.
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
if os.environ.get('ROS_DISTRO') == 'humble':  # it does not know the variable above
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # as in xmem_ros.threads, for trackers in this process
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # there are as many workers as cores
DOMAIN, _claim = _claim_domain()
os.environ['ROS_DOMAIN_ID'] = str(DOMAIN)


def _slow_rank(path: Path) -> int:
    """Return the index of a file's entry in SLOW; len(SLOW) for a fast file."""
    name = path.relative_to(HERE).as_posix()
    return next((rank for rank, slow in enumerate(SLOW) if f'{name}/'.startswith(f'{slow}/')), len(SLOW))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the import of files that `-m 'not slow'` excludes."""
    return True if config.option.markexpr == 'not slow' and _slow_rank(collection_path) < len(SLOW) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests; with several workers, run them first."""
    ranks = {path: _slow_rank(path) for path in {item.path for item in items}}
    for item in items:
        if ranks[item.path] < len(SLOW):
            item.add_marker(pytest.mark.slow)
    if 'PYTEST_XDIST_WORKER' in os.environ:
        items.sort(key=lambda item: ranks[item.path])


@pytest.fixture(scope='session')
def network():
    """Bundled network on the CPU; tests must not change it."""
    from xmem_ros.weights.checkpoint import load_network
    from xmem_ros.weights.files import find_weights

    return load_network(find_weights('compact'))
