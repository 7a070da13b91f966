# SPDX-License-Identifier: MIT
"""The published figures, the command for each, and what our results say: docs/reproduction.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from xmem_ros.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

INTRODUCTION = """\
# Reproduction

Every figure that the paper or its authors' list gives, the command that makes it here, and what came out. This page is made by

```sh
xmem-ros evaluate --reproduction-table --results docs/results > docs/reproduction.md
```

from the JSON files that the commands write. `DATA` is a folder with the data sets as their authors lay them out
([evaluation.md](evaluation.md)); official weights come by `xmem-ros weights fetch all`. What a server scores comes back as figures: put
them into the row's JSON file as `"server": {"J&F": 85.7}`, and they appear here. Multi-scale is, as in the authors' example, 720p plain and
mirrored with a memory frame every 3 frames; that it was the same for YouTube-VOS is assumed.

The official weights, and most of the data sets, could not be had where this was made, so no row of the paper was run. What was done instead,
with generated weights of the full size or by hand, is under *how near we come*, explained [at the end](#evidence).
"""
NOT_MEASURED = 'not measured'


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        section: data set.
        id: of its result, `ID.json`.
        what: the variant.
        published: the figure; None: there is none.
        commands: that make it, in order.
        needs: what must be at hand.
        server: whether a server scores.
        measure: key of the result.
        evidence: comparisons that tell how near we come.
        note: what else a reader must know.
    """

    section: str
    id: str
    what: str
    published: float | None
    commands: tuple[str, ...]
    needs: str
    server: bool
    measure: str
    evidence: tuple[str, ...]
    note: str


def rows() -> list[Row]:
    """All figures, in order."""
    sections = yaml.safe_load((Path(__file__).parent / 'reproduction.yaml').read_text(encoding='utf-8'))
    return [_row(section, row) for section in sections for row in section['rows']]


def _row(section: Mapping[str, Any], row: Mapping[str, Any]) -> Row:
    measure = section.get('measure', 'J&F')
    parts = ['xmem-ros evaluate', row.get('dataset', section.get('dataset')), f'--weights {row["weights"]}']
    parts += [row['arguments']] if 'arguments' in row else []
    parts += [f'--output out/{row["id"]}'] if measure != 'fps' else []
    parts += [f'--json results/{row["id"]}.json']
    training = tuple(row.get('train', ()))
    official = str(row['weights']).startswith('xmem')
    needs = [row.get('needs', section['needs']), *([f'the weights {row["weights"]}'] if official else [])]
    needs += ['days of training on several GPUs'] if training else []
    return Row(
        section=section['section'],
        id=row['id'],
        what=row['what'],
        published=row.get('published'),
        commands=(*training, ' '.join(parts)),
        needs=', '.join(needs),
        server=section.get('server', False),
        measure=measure,
        evidence=tuple(row.get('evidence', section.get('evidence', ()))),
        note=row.get('note', ''),
    )


def table(results: Path) -> str:
    """The page, from the results that a folder holds.

    Raises:
        ParameterError: the folder is not there, or a result cannot be read.
    """
    if not results.is_dir():
        raise ParameterError(f'{results}: no such folder; --results names the one with the JSON results')
    everything = rows()
    lines = [INTRODUCTION]
    for section in dict.fromkeys(row.section for row in everything):
        lines += _section(section, [row for row in everything if row.section == section], results)
    lines += _evidence(results)
    return '\n'.join(lines) + '\n'


def _section(title: str, own: list[Row], results: Path) -> list[str]:
    measure = 'frames a second' if own[0].measure == 'fps' else own[0].measure
    lines = [f'## {title}', '', f'| {measure} of | published | ours | how near we come |', '| --- | --- | --- | --- |']
    for row in own:
        published = '–' if row.published is None else f'{row.published:.1f}'
        note = f' ({row.note})' if row.note else ''
        lines.append(f'| {row.what}{note} | {published} | {_ours(row, results)} | {_nearness(row, results)} |')
    lines += ['', '```sh']
    seen: set[str] = set()
    for row in own:
        lines.append(f'# {row.what}')
        lines += [command for command in row.commands if command not in seen]
        seen.update(row.commands)
    return [*lines, '```', '']


def _ours(row: Row, results: Path) -> str:
    result = _read(results / f'{row.id}.json')
    if result is None:
        return f'not run: needs {row.needs}' + (', and its server' if row.server else '')
    figure = result.get(row.measure)
    if figure is None:
        figure = result.get('server', {}).get(row.measure)
    if figure is None:
        return 'masks made; its server has not said yet'
    if row.measure == 'fps':
        return f'{figure:.1f} ({result["speed"][0]["device_name"]})'
    return f'**{figure:.1f}**' + (f' (J {result["J"]:.1f}, F {result["F"]:.1f})' if result.get('J') is not None else '')


def _nearness(row: Row, results: Path) -> str:
    masks = (_read(results / 'reference_evaluation.json') or {}).get('masks', {})
    said = {
        'objects': 'several objects by [cases of the authors\' probabilities](#evidence)',
        'late': 'later objects and the sparse output by [tests](#evidence)',
        'speed': 'same clock, [other machine](#evidence)',
    }
    names = {'plain': 'masks', 'flip': 'mirrored', 'two_scales': 'other and merged sizes'}
    parts = []
    for kind in row.evidence:
        if kind in names:
            share = f'{masks[kind]["differing_percent"]:.4f} % of pixels differ' if kind in masks else NOT_MEASURED
            parts.append(f'{names[kind]}: {share}')
        else:
            parts.append(said[kind])
    return '; '.join(parts) or '–'


def _evidence(results: Path) -> list[str]:
    """What was done without the official weights."""
    lines = ['## Evidence', '']
    figures = _read(results / 'reference_evaluation.json')
    if figures:
        masks, scores = figures['masks'], figures['scores']
        shares = '; '.join(
            f'{name.replace("_", " ")} {row["differing_percent"]:.5f} % ({row["worst_frame_percent"]:.4f} % in the worst frame)'
            for name, row in masks.items()
        )
        bits = '; '.join(
            f'at {name} {row["differing_percent"]:.3f} % differ, by {row["largest_difference"]} of 255 at most'
            for name, row in scores.items()
        )
        lines += [
            f'- **Masks.** `eval.py` of the authors and `xmem-ros evaluate`, full size, generated weights, float32, on all '
            f'{masks["plain"]["frames"]} frames of {" and ".join(figures["sequences"])}; share of pixels of the PNGs that '
            f'differ: {shares}. 8-bit probabilities that are merged: {bits}. `python benchmarks/reference_evaluation.py`.',
        ]
    figures = _read(results / 'davis2017_evaluation.json')
    if figures:
        lines += [
            f'- **Scores.** davis2017-evaluation and ours on the same {figures["masks"]} masks of {figures["sequences"]} '
            f'sequences with {figures["objects"]} objects, empty masks and missing objects among them: J and F of every object '
            f'differ by at most {figures["largest_difference"]:.1e} on the scale 0–1. `python benchmarks/score_comparison.py`.',
        ]
    lines += [
        '- **Several objects** of the first frame, consolidation and eviction: probabilities of the authors\' code, '
        '`python test/parity.py test/data/rendered.npz`.',
        '- **Later objects, sparse output, the layouts**: `test/test_evaluation_layouts.py` builds each published layout and tries '
        'every rule of its protocol. Where objects begin later, the authors\' code misaligns its memory once it consolidates; ours '
        'does not, so there the masks cannot be the same.',
        '- **Speed**: the clock of `--fps` starts and ends where the authors\' does; figures are comparable on the same GPU only.',
    ]
    figures = _read(results / 'speed.json')
    if figures:
        lines += [
            f'  Measured: {row["fps"]:.2f} frames a second, {row["precision"]}, {row["device_name"]}'
            + (f', {row["threads"]} threads' if 'threads' in row else '')
            + f' ({figures["weights"]}, {figures["dataset"]}, {row["frames"]} frames).'
            for row in figures['speed']
        ]
    return lines


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ParameterError(f'{path}: not readable as a result ({error})') from error
