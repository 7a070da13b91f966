# SPDX-License-Identifier: MIT
"""Short seeded campaigns of every kind; `make fuzz` runs long ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.campaign import MODULES

TEST = Path(__file__).resolve().parent.parent
COUNT = 4  # inputs of a kind


@pytest.fixture(scope='module')
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Figures by kind, from a process of its own: pytest's may have threads, and must not fork."""
    folder = tmp_path_factory.mktemp('fuzz')
    given = ['--count', str(COUNT), '--seed', '1', '--out', str(folder), '--json', str(folder / 'found.json')]
    paths = os.pathsep.join([str(TEST), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(
        [sys.executable, '-m', 'fuzz', *given], env=env, cwd=TEST.parent, capture_output=True, text=True, check=False
    )
    assert (folder / 'found.json').exists(), result.stderr
    return {item['kind']: item for item in json.loads((folder / 'found.json').read_text())}


@pytest.mark.parametrize('kind', MODULES)
def test_untrusted_input_is_used_or_refused_and_does_no_harm(figures: dict[str, Any], kind: str) -> None:
    assert figures[kind]['inputs'] == COUNT
    assert figures[kind]['symptoms'] == []
