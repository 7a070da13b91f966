# SPDX-License-Identifier: MIT
"""A run over one kind of input: so many inputs or seconds, what was found, and the files that repeat it."""

from __future__ import annotations

import gc
import importlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from tqdm import tqdm

from fuzz.chance import Chance
from fuzz.kind import Kind
from fuzz.sandbox import Files, Outcome, Places, Sandbox, read_files, write_files
from xmem_ros.progress import Bar

ROUND = 250  # inputs of a seed of Hypothesis, which remembers what it has drawn
MODULES = {
    'weights': 'tensors',
    'memory': 'tensors',
    'seeds': 'texts',
    'suite': 'texts',
    'parameters': 'texts',
    'manifest': 'texts',
    'frames': 'footage',
    'video': 'footage',
    'mask': 'footage',
    'mcap': 'bags',
    'db3': 'bags',
    'folder': 'bags',
    'image': 'wire',
    'message': 'wire',
    'page': 'page',
}
"""Kind → the module of this package that has it."""


@dataclass
class Finding:
    """A symptom, and the simplest input that has it."""

    symptom: str
    count: int
    edits: list[str]
    detail: str
    files: dict[str, Any] = field(repr=False)


@dataclass
class Figures:
    """What a run over a kind came to."""

    kind: str
    seed: int
    inputs: int = 0
    accepted: int = 0  # of them, with nothing wrong as far as the program can tell
    findings: int = 0  # different symptoms
    found: int = 0  # inputs that had one
    seconds: float = 0.0
    longest_s: float = 0.0  # of processor time
    peak_mb: int = 0  # resident, with what the harness holds
    harness_mb: int = 0  # that the harness holds


def kind_of(name: str) -> Kind:
    """Load a kind by name."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    tqdm.monitor_interval = 0  # a thread, which a fork would leave behind
    module = importlib.import_module(f'fuzz.{MODULES[name]}')
    return next(kind for kind in module.kinds() if kind.name == name)


class Trial:
    """One kind in a sandbox.

    Arguments:
        name: of the kind.
        seed: that all follows from.
        sandbox: to run inputs in.
    """

    def __init__(self, name: str, seed: int, sandbox: Sandbox) -> None:
        self.kind, self.sandbox = kind_of(name), sandbox
        self.figures = Figures(name, seed)
        self.findings: dict[str, Finding] = {}
        self._whole = self.kind.make()
        for files in self._whole:
            self._check_whole(files)
        gc.collect()
        gc.freeze()  # else the first collection of every child would copy all of it
        self.figures.harness_mb = round(self._run(self._whole[0]).peak / 1e6)

    def _run(self, files: Files) -> Outcome:
        return self.sandbox.run(files, self.kind.work, self.kind.allowed, self.kind.codes, self.kind.may)

    def _check_whole(self, files: Files) -> None:
        """A whole input must be accepted, or a run over spoilt ones would mean nothing."""
        self.sandbox.warm_up(files, self.kind.work)
        outcome = self._run(files)
        if outcome.symptoms or outcome.code != 0:
            raise AssertionError(f'{self.kind.name}: {sorted(files)} is refused: {outcome}')

    def spend(self, count: int, seconds: float = float('inf'), *, show: bool = False) -> None:
        """Try so many inputs, or for so long."""
        begun = time.monotonic()
        total = count if seconds == float('inf') else None
        with Bar(total=total, desc=self.kind.name, unit='input', disable=not show) as bar:
            for number in range(10**9):
                before = self.figures.inputs
                left = count - before
                if left <= 0 or time.monotonic() - begun >= seconds:
                    break
                self._round(number, min(left, ROUND), begun + seconds, bar)
                if self.figures.inputs == before:
                    break
        self.figures.seconds += time.monotonic() - begun

    def _round(self, number: int, count: int, end: float, bar: Any) -> None:
        places = self.sandbox.places

        @seeded(self.figures.seed * 1_000_003 + number)
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def one(data: Any) -> None:
            chance = Chance(data.draw, str(places.canary), places.port)
            files = self.kind.spoil(chance, dict(chance.pick(self._whole)))
            if time.monotonic() < end:  # what is drawn may not depend on the time
                self._note(files, self._run(files), chance.edits)
                bar.update()

        one()

    def _note(self, files: Files, outcome: Outcome, edits: list[str]) -> None:
        figures = self.figures
        figures.inputs += 1
        figures.accepted += not outcome.symptoms and outcome.code == 0
        figures.longest_s = max(figures.longest_s, round(outcome.seconds, 3))
        figures.peak_mb = max(figures.peak_mb, round(outcome.peak / 1e6))
        figures.found += bool(outcome.symptoms)
        for symptom in outcome.symptoms:
            known = self.findings.get(symptom)
            count = known.count + 1 if known else 1
            if known is None or len(edits) < len(known.edits):
                self.findings[symptom] = Finding(symptom, count, edits, outcome.detail, dict(files))
            else:
                known.count = count
        figures.findings = len(self.findings)


def save(trial: Trial, folder: Path) -> list[Path]:
    """Write each finding with its input into a folder of its own; returns the folders."""
    saved = []
    for number, finding in enumerate(sorted(trial.findings.values(), key=lambda item: -item.count)):
        place = folder / f'{trial.kind.name}-{trial.figures.seed}-{number:03d}'
        write_files(place / 'in', finding.files)
        places = trial.sandbox.places
        about = {
            'kind': trial.kind.name,
            'symptom': finding.symptom,
            'count': finding.count,
            'edits': finding.edits,
            'detail': finding.detail,
            'repeat': repeat_command(place),
            'root': str(places.root),
            'port': places.port,
        }
        (place / 'finding.json').write_text(json.dumps(about, indent=1) + '\n')
        saved.append(place)
    return saved


def repeat_command(place: Path) -> str:
    """What repeats a finding, from the checkout."""
    return f'. tools/env.sh && PYTHONPATH=$PYTHONPATH:test python -m fuzz --repeat {place.resolve()}'


def repeat(place: Path) -> Outcome:
    """Run the input of a finding again, in a sandbox of the same name: paths and ports may be part of it."""
    about = json.loads((place / 'finding.json').read_text())
    kind = kind_of(about['kind'])
    with Sandbox(Path(about['root']), about['port']) as sandbox:
        for files in kind.make():
            sandbox.warm_up(files, kind.work)
        return sandbox.run(read_files(place / 'in'), kind.work, kind.allowed, kind.codes, kind.may)


def described(trial: Trial) -> dict[str, Any]:
    """For JSON."""
    found = [{'symptom': item.symptom, 'count': item.count, 'edits': item.edits} for item in trial.findings.values()]
    return {**asdict(trial.figures), 'symptoms': found}


__all__ = ['MODULES', 'Figures', 'Finding', 'Places', 'Trial', 'described', 'kind_of', 'repeat', 'save']
