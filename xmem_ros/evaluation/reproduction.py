# SPDX-License-Identifier: MIT
"""Published figures, the command for each, and our results: docs/reproduction.md."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.data_files import read_json, read_yaml
from xmem_ros.errors import ParameterError, summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

# evidence of agreement, as in the table
PASSES = {'plain': 'masks', 'flip': 'mirrored frames', 'two_scales': 'other and merged sizes'}
OTHERS = {
    'objects': 'several objects: see [protocols](#evidence)',
    'late': 'late objects and sparse output: see [protocols](#evidence)',
    'speed': 'same definition of the rate, another machine',
}


@dataclass(frozen=True)
class Row:
    """One published figure.

    Attributes:
        section: data set.
        id: name of its result file, `ID.json`.
        variant: variant of the model or protocol.
        published: the figure; None: not published.
        commands: commands that reproduce it, in order.
        needs: data and weights that the commands need.
        server: whether a server scores the masks.
        measure: key of the result.
        evidence: comparisons with the authors' code.
        note: remark for the reader.
    """

    section: str
    id: str
    variant: str
    published: float | None
    commands: tuple[str, ...]
    needs: str
    server: bool
    measure: str
    evidence: tuple[str, ...]
    note: str


def rows() -> list[Row]:
    """Return all figures, in order."""
    sections = read_yaml(Path(__file__).parent / 'reproduction.yaml', ParameterError)
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
        variant=row['what'],
        published=row.get('published'),
        commands=(*training, ' '.join(parts)),
        needs=', '.join(needs),
        server=section.get('server', False),
        measure=measure,
        evidence=tuple(row.get('evidence', section.get('evidence', ()))),
        note=row.get('note', ''),
    )


def table(results: Path) -> str:
    """Render docs/reproduction.md from the results in a folder.

    Raises:
        ParameterError: the folder is absent, a result is unreadable, or jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, TemplateError
    except ImportError as error:
        raise ParameterError('the table needs jinja2: pip install jinja2') from error
    if not results.is_dir():
        raise ParameterError(f'{results}: no such folder; give the folder of the JSON results')
    try:
        return _page(results, Environment)
    except ParameterError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, TemplateError) as error:
        raise ParameterError(
            f'{results}: a result is not from xmem-ros evaluate ({summary_of(error)}); run the evaluation again'
        ) from error


def _page(results: Path, environment: type[Environment]) -> str:
    # the first one has the published settings
    references = [_read(path) or {} for path in sorted(results.glob('reference_evaluation*.json'))]
    masks = references[0]['masks'] if references else {}
    speed = _read(results / 'speed.json') or {}
    sections: dict[str, dict[str, Any]] = {}
    for row in rows():
        measure = 'frames/s' if row.measure == 'fps' else row.measure
        section = sections.setdefault(row.section, {'title': row.section, 'measure': measure, 'rows': []})
        shown = [command for other in section['rows'] for command in other['commands']]
        section['rows'].append(
            {
                'what': row.variant,
                'note': row.note,
                'published': '–' if row.published is None else f'{row.published:.1f}',
                'ours': _ours(row, _read(results / f'{row.id}.json')),
                'agreement': _agreement(row, masks),
                'commands': [_wrapped(command) for command in row.commands if _wrapped(command) not in shown],
            }
        )
    template = (Path(__file__).parent / 'reproduction.md.j2').read_text(encoding='utf-8')
    page = environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).from_string(template)
    return page.render(
        sections=list(sections.values()),
        references=references,
        protocols=_read(results / 'reference_protocols.json') or {},
        scores=_read(results / 'davis2017_evaluation.json'),
        speed=[{**row, 'weights': speed.get('weights')} for row in speed.get('speed', [])],
    )


def _wrapped(command: str) -> str:
    """Break a command of the shell into lines of at most 100 characters."""
    lines = textwrap.wrap(command, 94, break_long_words=False, break_on_hyphens=False)
    return ' \\\n    '.join(lines)


def _ours(row: Row, result: Mapping[str, Any] | None) -> str:
    """Format the result of a row, or the requirements of its commands."""
    if result is None:
        return f'not run: needs {row.needs}' + (', and the scoring server' if row.server else '')
    figure = result.get(row.measure)
    if figure is None:
        figure = result.get('server', {}).get(row.measure)
    if figure is None:
        return 'masks are ready, but not scored by the server yet'
    if row.measure == 'fps':
        return f'**{figure:.1f}** ({result["speed"][0]["device_name"]})'
    return f'**{figure:.1f}**' + (f' (J {result["J"]:.1f}, F {result["F"]:.1f})' if result.get('J') is not None else '')


def _agreement(row: Row, masks: Mapping[str, Mapping[str, float]]) -> str:
    """Format the evidence of a row; `masks`: kind of pass → share of differing pixels."""
    parts = []
    for kind in row.evidence:
        if kind in PASSES:
            share = f'{masks[kind]["differing_percent"]:.4f} % of pixels differ' if kind in masks else 'not measured'
            parts.append(f'{PASSES[kind]}: {share}')
        else:
            parts.append(OTHERS[kind])
    return '; '.join(parts) or '–'


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(read_json(path, ParameterError))
    except FileNotFoundError:
        return None
    except ParameterError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise ParameterError(f'{path}: not readable as a result ({error}); run its evaluation again') from error
