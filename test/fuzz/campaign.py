# SPDX-License-Identifier: MIT
"""Campaign over one kind of input: figures, findings, and the files that reproduce them."""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from fuzz.kinds import Kind
from fuzz.mutation import Source
from fuzz.sandbox import Files, Outcome, Sandbox, read_files, write_files
from xmem_ros.progress import Bar

SHARED = '/dev/shm'  # in memory: many small files come and go
MODULES = {
    'weights': 'tensors',
    'memory': 'tensors',
    'seeds': 'documents',
    'suite': 'documents',
    'parameters': 'documents',
    'manifest': 'documents',
    'frames': 'media',
    'video': 'media',
    'mask': 'media',
    'mcap': 'bags',
    'db3': 'bags',
    'folder': 'bags',
    'image': 'messages',
    'message': 'messages',
    'page': 'page',
}
"""Kind → module of this package."""

MOST_INPUT = 16 << 20  # bytes


@dataclass
class Finding:
    """Symptom, and the input with the fewest edits that shows it."""

    symptom: str
    count: int
    edits: list[str]
    place: Path  # folder of the input


@dataclass
class Figures:
    """Figures of a campaign."""

    kind: str
    seed: int
    inputs: int = 0
    accepted: int = 0  # inputs without error
    findings: int = 0  # distinct symptoms
    found: int = 0  # inputs with a symptom
    seconds: float = 0.0
    longest_s: float = 0.0  # CPU time
    longest_input: int = 0  # number of that input
    peak_mb: int = 0  # resident set, the harness included
    peak_input: int = 0
    harness_mb: int = 0  # peak of a valid input


def kind_of(name: str) -> Kind:
    """Load a kind by name."""
    if os.access(SHARED, os.W_OK):
        tempfile.tempdir = SHARED
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    tqdm.monitor_interval = 0  # no thread: forks need a single-threaded process
    module = importlib.import_module(f'fuzz.{MODULES[name]}')
    return next(kind for kind in module.kinds() if kind.name == name)


class Campaign:
    """Campaign over one kind.

    Arguments:
        name: kind.
        seed: determines all inputs.
        sandbox: runs the inputs.
        out: folder for findings.
    """

    def __init__(self, name: str, seed: int, sandbox: Sandbox, out: Path) -> None:
        self.kind, self.sandbox, self._out = kind_of(name), sandbox, out
        self.figures = Figures(name, seed)
        self.findings: dict[str, Finding] = {}
        self._corpus = self.kind.make()
        for files in self._corpus:
            self._check_valid(files)
        gc.collect()
        gc.freeze()  # a collection in a child would copy all pages
        self.figures.harness_mb = round(self._run(self._corpus[0]).peak / 1e6)

    def _run(self, files: Files) -> Outcome:
        return self.sandbox.run(files, self.kind.work, self.kind.allowed, self.kind.codes, self.kind.may)

    def _check_valid(self, files: Files) -> None:
        """Raise `AssertionError` unless a valid input is accepted."""
        self.sandbox.warm_up(files, self.kind.work)
        outcome = self._run(files)
        if outcome.symptoms or outcome.code != 0:
            raise AssertionError(f'{self.kind.name}: {sorted(files)} is refused: {outcome}')

    def spend(self, count: int, seconds: float = float('inf'), first: int = 0, *, show: bool = False) -> None:
        """Run `count` inputs, or for `seconds`, beginning with the input number `first`."""
        begun = time.monotonic()
        total = count if seconds == float('inf') else None
        with Bar(total=total, desc=self.kind.name, unit='input', disable=not show) as bar:
            while self.figures.inputs < count and time.monotonic() - begun < seconds:
                number = first + self.figures.inputs
                files, source = self._mutated(f'{self.kind.name} {self.figures.seed} {number}')
                self._note(number, files, self._run(files), source.edits)
                bar.update()
        self.figures.seconds = round(self.figures.seconds + time.monotonic() - begun, 1)

    def _mutated(self, seed: str) -> tuple[Files, Source]:
        """Draw an input; a mutation that a library cannot carry out is drawn anew."""
        places = self.sandbox.places
        while True:
            source = Source(seed, str(places.canary), places.port)
            try:
                files = self.kind.mutate(source, dict(source.pick(self._corpus)))
                if sum(len(content) for content in files.values() if isinstance(content, bytes)) <= MOST_INPUT:
                    return files, source
                seed += '+'  # the harness itself would need the memory
            except Exception:  # nested too deeply, no such tensor, a library's fault
                seed += '+'

    def _note(self, number: int, files: Files, outcome: Outcome, edits: list[str]) -> None:
        figures = self.figures
        figures.inputs += 1
        figures.accepted += not outcome.symptoms and outcome.code == 0
        if outcome.seconds > figures.longest_s:
            figures.longest_s, figures.longest_input = round(outcome.seconds, 3), number
        if outcome.peak > figures.peak_mb * 1e6:
            figures.peak_mb, figures.peak_input = round(outcome.peak / 1e6), number
        figures.found += bool(outcome.symptoms)
        for symptom in outcome.symptoms:
            known = self.findings.get(symptom)
            count = known.count + 1 if known else 1
            if known is None or len(edits) < len(known.edits):
                place = known.place if known else self._out / f'{figures.kind}-{figures.seed}-{figures.findings:03d}'
                self.findings[symptom] = Finding(symptom, count, edits, place)
                figures.findings = len(self.findings)
                self._save(self.findings[symptom], files, outcome)
            else:
                known.count = count

    def _save(self, finding: Finding, files: Files, outcome: Outcome) -> None:
        places = self.sandbox.places
        shutil.rmtree(finding.place, ignore_errors=True)
        write_files(finding.place / 'in', files)
        about = {
            'kind': self.kind.name,
            'symptom': finding.symptom,
            'edits': finding.edits,
            'detail': outcome.detail,
            'repeat': repeat_command(finding.place),
            'root': str(places.root),
            'port': places.port,
        }
        (finding.place / 'finding.json').write_text(json.dumps(about, indent=1) + '\n')
        Bar.write(f'{self.kind.name}: {finding.symptom}\n    {repeat_command(finding.place)}', file=sys.stderr)


def repeat_command(place: Path) -> str:
    """Build the command that reproduces a finding."""
    return f'. tools/env.sh && PYTHONPATH=$PYTHONPATH:test python -m fuzz --repeat {place.resolve()}'


def repeat(place: Path) -> Outcome:
    """Run the input of a finding again.

    The sandbox has the same path and port, since the input may hold them.
    """
    about = json.loads((place / 'finding.json').read_text())
    kind = kind_of(about['kind'])
    with Sandbox(Path(about['root']), about['port']) as sandbox:
        for files in kind.make():
            sandbox.warm_up(files, kind.work)
        return sandbox.run(read_files(place / 'in'), kind.work, kind.allowed, kind.codes, kind.may)


def described(campaign: Campaign) -> dict[str, Any]:
    """Build the JSON record of a campaign."""
    found = [{'symptom': item.symptom, 'count': item.count, 'edits': item.edits} for item in campaign.findings.values()]
    return {**asdict(campaign.figures), 'symptoms': found}
