# SPDX-License-Identifier: MIT
"""Reproducibility of inputs and findings."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from fuzz.campaign import Campaign, kind_of, repeat
from fuzz.kinds import Kind
from fuzz.mutation import Source
from fuzz.sandbox import Files, Places, Sandbox, read_files


def _made(name: str, numbers: list[int]) -> list[Files]:
    kind = kind_of(name)
    corpus = kind.make()
    sources = [Source(f'{name} {number}', '/canary', 9) for number in numbers]
    return [kind.mutate(source, dict(source.pick(corpus))) for source in sources]


def _stumble(places: Places) -> int:
    return 9 if b'9' in (places.input / 'p.yaml').read_bytes() else 0


def _found(out: Path) -> tuple[list[tuple[str, int]], list[list[str]]]:
    """Symptoms with their counts, and the symptoms of each finding when repeated."""
    kind_of('parameters')
    with Sandbox() as sandbox:
        campaign = Campaign('parameters', 1, sandbox, out)
        campaign.kind = Kind('parameters', campaign.kind.make, campaign.kind.mutate, _stumble)
        campaign.spend(60)
        found = [(finding.symptom, finding.count) for finding in campaign.findings.values()]
        places = [finding.place for finding in campaign.findings.values()]
        assert all(b'9' in read_files(place / 'in')['p.yaml'] for place in places)  # type: ignore[operator]
    return found, [repeat(place).symptoms for place in places]


@pytest.fixture(scope='module')
def elsewhere():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        yield pool


@pytest.mark.parametrize('name', ['weights', 'db3', 'parameters', 'video'])
def test_an_input_is_determined_by_its_number(elsewhere: ProcessPoolExecutor, name: str) -> None:
    first = elsewhere.submit(_made, name, [3, 4, 5]).result()
    assert elsewhere.submit(_made, name, [5, 4, 3]).result() == first[::-1]
    assert len({str(files) for files in first}) == 3


def test_each_symptom_gives_one_finding_with_an_input(elsewhere: ProcessPoolExecutor, tmp_path: Path) -> None:
    found, again = elsewhere.submit(_found, tmp_path).result()
    assert [symptom for symptom, _ in found] == ['exit code 9: ']
    assert found[0][1] > 1
    assert again == [[]]  # the real reader of parameters has no fault there
