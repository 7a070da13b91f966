# SPDX-License-Identifier: MIT
"""Runs of `xmem-ros regress` on bags of the rendered scene."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bag_suite import FRAME_NS, START_NS, TRUTH_TOPIC, write_suite

from xmem_ros.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = {'size': 120}  # that of the frames; the default enlarges them
SHORT = 12  # frames of a scene in which nothing leaves


def regress(folder: Path, cases: list[Any], *options: Any, **suite: Any) -> tuple[int, dict[str, Any]]:
    """Run cases beside a folder's bags; returns the exit code and the JSON results, none where nothing was run."""
    path = write_suite(folder / 'suite.yaml', cases, **suite)
    results = folder / 'results.json'
    results.unlink(missing_ok=True)
    code = main(['regress', str(path), '--json', str(results), *map(str, options)])
    return code, json.loads(results.read_text())['cases'] if results.exists() else {}


def short_case(**keys: Any) -> dict[str, Any]:
    """A case of the bag `scene` that expects nothing."""
    parameters = {**SIZE, **keys.pop('parameters', {})}
    return {'name': 'scene', 'input': 'scene', 'reference': {'topic': TRUTH_TOPIC}, 'parameters': parameters, **keys}


def stepping_back_at(index: int) -> Callable[[int], int]:
    """Stamps of a camera whose clock is set back by two seconds at an image."""
    return lambda k: START_NS + k * FRAME_NS - (2_000_000_007 if k >= index else 0)


def cut_off(bag: Path) -> None:
    """Leave only the first part of a bag's file, as of a copy that broke off."""
    (path,) = bag.glob('*.mcap')
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
