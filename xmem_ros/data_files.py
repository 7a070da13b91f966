# SPDX-License-Identifier: MIT
"""YAML and JSON files from outside, read within bounds: size, depth, number of values, digits of a number.

What is beyond them, or cannot be read, is an error that names the file and the line. No torch, no ROS.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from xmem_ros.errors import XMemError, quoted

MOST_BYTES = 4 << 20  # of a YAML file
MOST_JSON_BYTES = 256 << 20
DEEPEST = 40  # lists and mappings inside one another
MOST_VALUES = 50_000  # with what aliases repeat
MOST_DIGITS = 19  # of a whole number: those of 64 bits


def read_yaml(path: Path, error: type[XMemError], *, text_only: bool = False) -> Any:
    """What a YAML file holds; dates are text.

    Arguments:
        path: of the file.
        error: what is raised.
        text_only: numbers and the like are text, too.

    Raises:
        OSError: the file cannot be read.
        XMemError: of the type `error`, naming file and line: not YAML, a key that is there twice, an alias inside what
            it stands for, or more than the bounds of this module.
    """
    text = _text(path, MOST_BYTES, error)
    try:
        return (_TextLoader if text_only else _Loader)(text).get_single_data()
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        place = f'line {mark.line + 1}, column {mark.column + 1}: ' if mark else ''
        problem = fault.problem or fault.context or 'it cannot be read'
        raise error(f'{path}: not YAML that can be used: {place}{" ".join(problem.split())}') from fault
    except yaml.reader.ReaderError as fault:
        line = text.count('\n', 0, fault.position) + 1
        raise error(f'{path}: not YAML that can be used: line {line}: {fault.reason}') from fault
    except yaml.YAMLError as fault:
        raise error(f'{path}: not YAML that can be used ({" ".join(str(fault).split())})') from fault


def read_json(path: Path, error: type[XMemError], most: int = MOST_JSON_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: the file cannot be read.
        XMemError: of the type `error`, naming the file and, where it is no JSON, the line.
    """
    return parse_json(_text(path, most, error), f'{path}', error)


def parse_json(text: str | bytes, where: str, error: type[XMemError]) -> Any:
    """What a JSON text holds; `where` is for the error, of the type `error`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as fault:
        raise error(f'{where}: not JSON: line {fault.lineno}, column {fault.colno}: {fault.msg}') from fault
    except RecursionError as fault:
        raise error(f'{where}: not JSON that can be used: lists or objects are nested too deeply') from fault
    except ValueError as fault:  # a number of too many digits, NaN, bytes that are no text
        raise error(f'{where}: not JSON that can be used ({fault})') from fault


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is no number of JSON')


def _text(path: Path, most: int, error: type[XMemError]) -> str:
    with path.open('rb') as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise error(f'{path}: larger than {most >> 20} MB; it must be smaller')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as fault:
        line = data.count(b'\n', 0, fault.start) + 1
        raise error(f'{path}: not a text file in UTF-8 (line {line}, byte {fault.start}: {fault.reason})') from fault


class _Bounded(yaml.SafeLoader):
    """Counts while it composes, so that nothing is built of a file that is beyond the bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open: list[list[Any]] = []  # of what is being composed: anchor, values so far, depth below
        self._extent: dict[str, tuple[int, int]] = {}  # anchor → values, depth

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _, _ in self._open):
                raise _fault(f'the alias *{event.anchor} stands inside what it repeats', mark)
            node = super().compose_node(parent, index)
            self._count(*self._extent[str(event.anchor)], mark)
            return node
        anchor = event.anchor
        self._open.append([anchor, 0, 0])
        if len(self._open) > DEEPEST:
            raise _fault(f'lists and mappings are nested more than {DEEPEST} deep', mark)
        node = super().compose_node(parent, index)
        _, values, depth = self._open.pop()
        if anchor is not None:
            self._extent[anchor] = values + 1, depth + 1
        self._count(values + 1, depth + 1, mark)
        return node

    def _count(self, values: int, depth: int, mark: Any) -> None:
        """Add a node to that which holds it."""
        if not self._open:
            return
        self._open[-1][1] += values
        self._open[-1][2] = max(self._open[-1][2], depth)
        if sum(item[1] for item in self._open) > MOST_VALUES:
            raise _fault(f'more than {MOST_VALUES} values, counting what aliases repeat', mark)
        if len(self._open) + depth > DEEPEST:
            raise _fault(f'lists and mappings are nested more than {DEEPEST} deep', mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice, of which YAML readers silently take the last."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != '<<':
                if (key.tag, key.value) in seen:
                    raise _fault(f'the key {quoted(key.value)[1:-1]} is there twice; keep one', key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML's, but what its constructors raise for odd values are errors of YAML."""
        try:
            value = super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            given = quoted(node.value) if isinstance(node, yaml.ScalarNode) else 'what stands here'
            raise _fault(f'{given} is no {node.tag.rpartition(":")[2]}', node.start_mark) from error
        if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
            raise _fault(f'a whole number of more than {MOST_DIGITS} digits', node.start_mark)
        return value


class _Loader(_Bounded):
    """Numbers, truth values and nothing as YAML has them; dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != 'tag:yaml.org,2002:timestamp']
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _TextLoader(_Bounded):
    """All scalars as text: a stamp has more digits than a floating-point number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as PyYAML has it


def _as_text(loader: _TextLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


for _tag in ('int', 'float', 'bool', 'null', 'timestamp', 'binary'):
    _TextLoader.add_constructor(f'tag:yaml.org,2002:{_tag}', _as_text)


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)
