# SPDX-License-Identifier: MIT
"""Runs of `xmem-ros regress` on bags of the rendered scene."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bag_suite import FRAME_NS, START_NS, TRUTH_TOPIC, write_suite
from scene_files import save_untrained_weights

from xmem_ros.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = {'size': 120}  # that of the frames; the default enlarges them
SHORT = 12  # frames of a scene that no object leaves


def regress(folder: Path, cases: list[Any], *options: Any, **suite: Any) -> tuple[int, dict[str, Any]]:
    """Run cases on the bags of a folder; return exit code and JSON results ({} without a run)."""
    path = write_suite(folder / 'suite.yaml', cases, **suite)
    results = folder / 'results.json'
    results.unlink(missing_ok=True)
    code = main(['regress', str(path), '--json', str(results), *map(str, options)])
    return code, json.loads(results.read_text())['cases'] if results.exists() else {}


def short_case(**keys: Any) -> dict[str, Any]:
    """Return a case for the bag `scene` without expectations."""
    parameters = {**SIZE, **keys.pop('parameters', {})}
    return {'name': 'scene', 'input': 'scene', 'reference': {'topic': TRUTH_TOPIC}, 'parameters': parameters, **keys}


def untrained_case(folder: Path, **keys: Any) -> dict[str, Any]:
    """Return a `short_case` for which any masks do: of a tiny network, which is written there."""
    weights = save_untrained_weights(folder / 'untrained.safetensors')
    parameters = {'weights': str(weights), 'size': 64, **keys.pop('parameters', {})}
    return short_case(**keys, parameters=parameters)


def stepping_back_at(index: int) -> Callable[[int], int]:
    """Return stamps of a camera whose clock steps back by two seconds at an image."""
    return lambda k: START_NS + k * FRAME_NS - (2_000_000_007 if k >= index else 0)


def cut_off(bag: Path) -> None:
    """Truncate a bag's file, as an interrupted copy does."""
    (path,) = bag.glob('*.mcap')
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
