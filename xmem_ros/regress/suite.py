# SPDX-License-Identifier: MIT
"""Suites: YAML files with cases and their limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmem_ros.data_files import read_yaml
from xmem_ros.errors import ParameterError, listed, quoted
from xmem_ros.parameters.table import Parameters, changed
from xmem_ros.regress.figures import FIGURES, Figures, figure_of, flat
from xmem_ros.regress.suite_schema import (
    CASE,
    LIVE,
    OFFLINE,
    RECORDED,
    REFERENCE,
    SEEDS,
    SUITE,
    faults_of,
    figure_faults,
)

MERGED = ('parameters', 'reference', 'expect', 'tolerance')  # merged with `defaults` key by key
_MAX_DEPTH = 4  # groups of parameters
_SET_BY_RUNNER = ('autostart', 'queue', 'image_transport')


@dataclass(frozen=True)
class Reference:
    """Source of the reference masks: a folder, or a topic of a bag."""

    folder: Path | None = None
    bag: Path | None = None
    topic: str = ''
    objects: Mapping[int, str] = field(default_factory=dict)  # value → name of the tracked object
    min_area: int = 16  # px


@dataclass(frozen=True)
class Seeds:
    """Seeds of a case: a file (mask or YAML), boxes, or with neither the recorded seeds."""

    file: Path | None = None
    boxes: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)  # name → x, y, width, height, px
    topic: str = ''  # of recorded seeds; '': the only one
    at: str = '0'  # number of the frame from 0, or its stamp in seconds


@dataclass(frozen=True)
class Case:
    """One recording, how to track it, and its limits."""

    name: str
    input: Path
    reference: Reference
    seeds: Seeds = Seeds()
    image_topic: str = ''
    frames: int = 0  # maximum; 0: all
    allow_damage: bool = False  # of the recording and of the reference
    runner: str = OFFLINE
    node: str = ''  # live: name of a running node; '': start one
    params_file: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)  # dotted name → value
    expect: Figures = field(default_factory=dict)
    tolerance: Figures = field(default_factory=dict)
    timeout: float = 60.0  # s

    def tolerance_of(self, name: str) -> float | None:
        """Return the allowed loss of a figure against the baseline; None: not compared."""
        general = self.tolerance.get(name.partition('.')[0], figure_of(name).tolerance)
        return self.tolerance.get(name, general)


@dataclass(frozen=True)
class Suite:
    """Suite with paths that are absolute or relative to the current folder."""

    path: Path
    cases: tuple[Case, ...]
    baseline: Path | None = None


def read_suite(path: Path) -> Suite:
    """Read a suite; paths in it are relative to its folder.

    Raises:
        ParameterError: keys or values are wrong; the text names all of them.
    """
    data = _read_yaml(path)
    faults = faults_of(SUITE, data, '')
    if 'cases' not in data:
        faults.append('cases is missing; add a list of cases, each with name, input and reference')
    if not SUITE['cases'].fits(data.get('cases')) or not SUITE['defaults'].fits(data.get('defaults', {})):
        raise _error(path, faults)
    defaults = data.get('defaults', {})
    faults += [f'defaults.{name}: not allowed; set it in each case' for name in ('name', 'input') if name in defaults]
    faults += _case_faults({k: v for k, v in defaults.items() if k not in ('name', 'input')}, 'defaults.')
    cases = []
    for index, own in enumerate(data['cases']):
        if not isinstance(own, dict) or not all(isinstance(key, str) for key in own):
            faults.append(f'cases[{index}] is {quoted(own)}; it must be a mapping of keys and values')
            continue
        where = f'case {quoted(own["name"])}: ' if isinstance(own.get('name'), str) else f'cases[{index}].'
        wrong = _case_faults(own, where)
        if not wrong and not faults:
            case = _with_defaults(defaults, own)
            wrong = _conflicts(case, where)
            if not wrong:
                cases.append(_case(path.parent, case))
        faults += wrong
    names = Counter(
        case['name'] for case in data['cases'] if isinstance(case, dict) and isinstance(case.get('name'), str)
    )
    faults += [
        f'case {quoted(name)}: {count} cases have this name; names must be unique'
        for name, count in names.items()
        if count > 1
    ]
    if faults:
        raise _error(path, faults)
    baseline = data.get('baseline')
    return Suite(path, tuple(cases), path.parent / baseline if baseline else None)


def chosen(suite: Suite, names: list[str]) -> list[Case]:
    """Return the cases with these names, all for []; raises `ParameterError` for an unknown one."""
    known = [case.name for case in suite.cases]
    if unknown := [name for name in names if name not in known]:
        raise ParameterError(f'{suite.path}: no case {listed([quoted(n) for n in unknown])}; known: {listed(known)}')
    return [case for case in suite.cases if not names or case.name in names]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path, ParameterError)
    except OSError as error:
        raise ParameterError(f'{path}: cannot be read ({error.strerror})') from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ParameterError(
            f'{path}: not a suite; a suite is a mapping with a list of cases, see the example in docs/regress.md'
        )
    return data


def _error(path: Path, faults: list[str]) -> ParameterError:
    return ParameterError('\n  '.join(f'{path}: {fault}' for fault in faults))


def _case_faults(case: Mapping[str, Any], where: str) -> list[str]:
    """Return the faults of a case's keys, each key checked alone; see `_conflicts`."""
    faults = faults_of(CASE, case, where)
    sound = {name: value for name, value in case.items() if name in CASE and CASE[name].fits(value)}
    faults += faults_of(REFERENCE, sound.get('reference', {}), f'{where}reference.')
    if isinstance(sound.get('seeds'), dict):
        faults += faults_of(SEEDS, sound['seeds'], f'{where}seeds.')
        given = set(sound['seeds'])
        if not faults and ('topic' in given) == bool({'mask', 'boxes'} & given):
            faults.append(f'{where}seeds: give a mask, boxes or both, or only the topic of recorded seeds')
    for name in ('expect', 'tolerance'):
        faults += figure_faults(sound.get(name, {}), f'{where}{name}.')
    try:
        parameters = dict(_dotted(sound.get('parameters', {})))
    except ParameterError as error:
        return [*faults, f'{where}{error}']
    for name in set(parameters) & set(_SET_BY_RUNNER):
        faults.append(f'{where}parameters.{name}: set by the runner; remove it')
    for name, value in parameters.items():
        if name not in _SET_BY_RUNNER:
            try:
                changed(Parameters(), {name: value})
            except ParameterError as error:
                faults.append(f'{where}parameters: {error}')
    return faults


def _conflicts(case: Mapping[str, Any], where: str) -> list[str]:
    """Return the faults of a case whose keys are missing, or contradict each other."""
    faults = [
        f'{where}{name} is missing: {CASE[name].description.partition(",")[0]}'
        for name in ('name', 'input', 'reference')
        if name not in case
    ]
    reference = case.get('reference', {})
    ways = [name for name in ('folder', 'topic') if name in reference]
    if 'reference' in case and len(ways) != 1:
        faults.append(f'{where}reference: give either a folder of masks, or the topic of the label images in a bag')
    objects = list(reference.get('objects', {}).values())
    faults += [
        f'{where}reference.objects: {quoted(name)} has several values; give each object one value'
        for name in sorted({name for name in objects if objects.count(name) > 1})
    ]
    if 'folder' in reference and 'bag' in reference:
        faults.append(f'{where}reference: folder and bag exclude each other; remove one')
    live = case.get('runner', OFFLINE) == LIVE
    if not live:
        faults += [f'{where}{name}: requires runner: live' for name in ('node', 'timeout') if name in case]
        faults += [
            f'{where}expect.{name}: requires runner: live' for name in case.get('expect', {}) if FIGURES[name].live_only
        ]
    if 'node' in case:
        faults += [
            f'{where}{name}: a running node keeps its parameters; remove {name}, or node'
            for name in ('parameters', 'params_file')
            if case.get(name)
        ]
        if 'process_mb' in case.get('expect', {}):
            faults.append(f'{where}expect.process_mb: requires a node that the suite starts; remove it, or node')
    return faults


def _with_defaults(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a case with the defaults that apply to its runner and reference."""
    case = {**defaults, **own}
    for name in MERGED:
        if name in defaults and name in own:
            case[name] = {**defaults[name], **own[name]}
    mine = own.get('reference', {})
    for name, other in (('folder', ('topic', 'bag')), ('topic', ('folder',)), ('bag', ('folder',))):
        if name in mine:
            case['reference'] = {k: v for k, v in case['reference'].items() if k in mine or k not in other}
    live = case.get('runner', OFFLINE) == LIVE
    ignored = () if live else ('node', 'timeout')
    if live and 'node' in case:
        ignored = ('parameters', 'params_file')
        case['parameters'] = own.get('parameters', {})
    for name in ignored:
        if name not in own:
            case.pop(name, None)
    started = live and 'node' not in case
    expected = own.get('expect', {})
    case['expect'] = {
        name: value
        for name, value in case.get('expect', {}).items()
        if name in expected or ((live or not FIGURES[name].live_only) and (started or name != 'process_mb'))
    }
    return case


def _case(folder: Path, case: Mapping[str, Any]) -> Case:
    """Make a case from checked keys."""
    live = case.get('runner', OFFLINE) == LIVE
    source = folder / case['input']
    reference = dict(case['reference'])
    if 'topic' in reference:
        reference['bag'] = folder / reference['bag'] if 'bag' in reference else source
    if 'folder' in reference:
        reference['folder'] = folder / reference['folder']
    plain = {name: case[name] for name in ('image_topic', 'frames', 'allow_damage', 'node') if name in case}
    return Case(
        name=case['name'],
        input=source,
        reference=Reference(**reference),
        seeds=_seeds(folder, case.get('seeds', RECORDED)),
        runner=LIVE if live else OFFLINE,
        params_file=folder / case['params_file'] if 'params_file' in case else None,
        parameters=dict(_dotted(case.get('parameters', {}))),
        expect=flat(case.get('expect', {})),
        tolerance=flat(case.get('tolerance', {})),
        timeout=float(case.get('timeout', 60.0)),
        **plain,
    )


def _seeds(folder: Path, given: Any) -> Seeds:
    if given == RECORDED:
        return Seeds()
    if isinstance(given, str):
        return Seeds(file=folder / given)
    return Seeds(
        file=folder / given['mask'] if 'mask' in given else None,
        boxes={name: tuple(box) for name, box in given.get('boxes', {}).items()},
        topic=given.get('topic', ''),
        at=str(given.get('at', 0)),
    )


def _dotted(values: Mapping[str, Any], prefix: str = '') -> list[tuple[str, Any]]:
    """Return parameters by dotted name; groups are flattened."""
    found: list[tuple[str, Any]] = []
    if prefix.count('.') > _MAX_DEPTH:
        raise ParameterError(f'parameters: {quoted(prefix)} is nested too deeply; the maximum is {_MAX_DEPTH} groups')
    for name, value in values.items():
        found += _dotted(value, f'{prefix}{name}.') if isinstance(value, dict) else [(f'{prefix}{name}', value)]
    return found
