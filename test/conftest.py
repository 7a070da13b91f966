# SPDX-License-Identifier: MIT
"""What all tests share: a ROS domain and threads of each process, the order of the files, the network."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# Tests that start processes, meet a node over DDS, open a browser, train, or track long recordings, the longest files
# first. `make test-fast` leaves them out; `make test` begins with them, so that none is left for the end.
SLOW = (
    'robustness',
    'training',
    'offline/test_broken_off.py',
    'fuzz',
    'node',
    'replay',
    'client',
    'web',
    'demo/test_demo.py',
    'regress/test_live.py',
    'regress/test_regress.py',
    'offline',
    'evaluation/test_passes.py',
    'evaluation/test_layouts.py',
    'evaluation/test_evaluation.py',
    'engines',
    'cli',
    'tracker/test_lives.py',
    'package/test_hostile_files.py',
)


def _claim_domain() -> tuple[int, socket.socket]:
    """Return a ROS domain that no other test process of this machine has, and the socket that claims it.

    The name of an abstract socket is free again when its process ends. Up to domain 101 every port lies below the
    ephemeral ones.
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


# Before anything imports rclpy or torch. Other graphs, on this machine or beyond, are none of a test's business;
# processes that a test starts inherit all of it, and so meet the test and nobody else.
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
if os.environ.get('ROS_DISTRO') == 'humble':  # which does not know the variable above
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # as xmem_ros.threads does, for the trackers in this process
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # the workers are as many as the cores
DOMAIN, _claim = _claim_domain()
os.environ['ROS_DOMAIN_ID'] = str(DOMAIN)


def _slow_rank(path: Path) -> int:
    """Place of a file in SLOW; the number of its entries where it is in none."""
    name = path.relative_to(HERE).as_posix()
    return next((rank for rank, slow in enumerate(SLOW) if f'{name}/'.startswith(f'{slow}/')), len(SLOW))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the files that `-m 'not slow'` would leave out."""
    return True if config.option.markexpr == 'not slow' and _slow_rank(collection_path) < len(SLOW) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of SLOW, and put them first where workers share the tests."""
    ranks = {path: _slow_rank(path) for path in {item.path for item in items}}
    for item in items:
        if ranks[item.path] < len(SLOW):
            item.add_marker(pytest.mark.slow)
    if 'PYTEST_XDIST_WORKER' in os.environ:
        items.sort(key=lambda item: ranks[item.path])


@pytest.fixture(scope='session')
def network():
    """The bundled network, on the CPU. Tests do not change it."""
    from xmem_ros.weights.checkpoint import find_weights, load_network

    return load_network(find_weights('compact'))
