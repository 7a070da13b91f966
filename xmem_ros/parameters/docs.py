# SPDX-License-Identifier: MIT
"""Writer of config/track.yaml and docs/parameters.md, from the parameter table."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from xmem_ros import atomic
from xmem_ros.outside_text import say
from xmem_ros.parameters.rule import WHEN, Value
from xmem_ros.parameters.table import rules

YAML = 'config/track.yaml'
DOCS = 'docs/parameters.md'


def track_yaml() -> str:
    """Write every parameter with its default as YAML, for `--params-file`."""
    lines = [
        '# SPDX-License-Identifier: MIT',
        '# Every parameter of the node with its default. Copy this file and keep the lines that you change.',
        '# Written by `python -m xmem_ros.parameters.docs --write`.',
        '/**:',
        '  ros__parameters:',
    ]
    group = ''
    for name, (default, rule) in rules().items():
        *parents, leaf = name.split('.')
        if parents and parents[0] != group:
            group = parents[0]
            lines.append(f'    {group}:')
        indent = ' ' * (4 + 2 * len(parents))
        allowed = f' Allowed: {rule.allowed()}{_unit(rule.unit)}.' if rule.allowed() else ''
        text = f'{rule.description}{allowed} Changes {WHEN[rule.change]}.'
        lines += [f'{indent}# {line}' for line in textwrap.wrap(text, 112 - len(indent))]
        lines.append(f'{indent}{leaf}: {_literal(default)}')
    return '\n'.join(lines) + '\n'


def parameters_md() -> str:
    """Write the table as Markdown."""
    lines = [
        '# Parameters',
        '',
        'Parameters of the node `xmem`. Besides, it takes `use_sim_time` and',
        '`qos_overrides.<topic>.<publisher|subscription>.<history|depth|reliability>`. `config/track.yaml`',
        'contains the same as a file to copy. A forbidden value is refused at the start.',
        '',
        '| changes | effect |',
        '| --- | --- |',
        '| at any time | with the next image |',
        '| while the node is unconfigured | `ros2 lifecycle set /xmem deactivate`, `… cleanup`, `ros2 param set …`, '
        '`… configure`, `… activate` |',
        '| only at the start of the node | with the next start |',
        '',
        'Written by `python -m xmem_ros.parameters.docs --write` from the table that the node uses.',
        '',
        '| name | type | default | allowed | unit | changes | description |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    for name, (default, rule) in rules().items():
        kind = {bool: 'bool', int: 'int', float: 'double', str: 'string', tuple: 'string[]'}[type(default)]
        lines.append(
            f'| `{name}` | {kind} | `{_literal(default)}` | {rule.allowed()} | {rule.unit} | {WHEN[rule.change]} '
            f'| {rule.description} |'
        )
    return '\n'.join(lines) + '\n'


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f'[{", ".join(value) or repr("")}]'
    return str(value) or "''"


def _unit(unit: str) -> str:
    return f' {unit}' if unit else ''


def main(arguments: list[str] | None = None) -> int:
    """Write both files, or check that they are up to date; return the exit code."""
    parser = argparse.ArgumentParser(
        description='Check or write config/track.yaml and docs/parameters.md, from the parameter table.'
    )
    parser.add_argument('--write', action='store_true', help='write the files (default: only compare)')
    root = Path(__file__).resolve().parents[2]
    parser.add_argument('--root', type=Path, default=root, help='folder of the checkout (default: %(default)s)')
    options = parser.parse_args(arguments)
    stale = 0
    for name, text in ((YAML, track_yaml()), (DOCS, parameters_md())):
        path = options.root / name
        if options.write:
            atomic.write_text(path, text)
            say(f'{path} written')
        elif not path.is_file() or path.read_text(encoding='utf-8') != text:
            stale += 1
            say(f'{path} is out of date: run python -m xmem_ros.parameters.docs --write')
    return 1 if stale else 0


if __name__ == '__main__':
    sys.exit(main())
