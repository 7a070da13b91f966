# SPDX-License-Identifier: MIT
"""Bounded reading of YAML, JSON and text files.

Bounds are size, nesting depth, number of values and digits of an integer. Errors name the file
and the line. Imports neither torch nor ROS.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xmem_ros import atomic
from xmem_ros.errors import XMemError, quoted

MAX_JSON_BYTES = 256 << 20
_C_OR_PYTHON_LOADER: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # libyaml's is 20 times faster
_MERGE_TAG = 'tag:yaml.org,2002:merge'
_INT_TAG = 'tag:yaml.org,2002:int'
_MAX_INT_LENGTH = 100  # characters; enough for 64 binary digits. YAML's base 60 takes quadratic time


@dataclass(frozen=True)
class YamlBounds:
    """Limits on a YAML text."""

    max_bytes: int = 4 << 20
    max_depth: int = 40  # nested lists and mappings
    max_values: int = 50_000  # aliases expanded
    max_digits: int = 19  # of an integer; signed 64 bits
    merge_keys: bool = True  # whether `<<` is allowed


DEFAULT_BOUNDS = YamlBounds()


def read_yaml(
    path: Path, error: type[XMemError], *, text_only: bool = False, bounds: YamlBounds = DEFAULT_BOUNDS
) -> Any:
    """Read a YAML file; dates stay text.

    Arguments:
        path: path of the file.
        error: type of the error to raise.
        text_only: keep all scalars as text, numbers included.
        bounds: limits on the content.

    Raises:
        OSError: the file cannot be read.
        XMemError: of the type `error`, see `parse_yaml`.
    """
    text = read_text(path, error, bounds.max_bytes)
    return parse_yaml(text, f'{path}', error, text_only=text_only, bounds=bounds)


def parse_yaml(
    text: str, source: str, error: type[XMemError], *, text_only: bool = False, bounds: YamlBounds = DEFAULT_BOUNDS
) -> Any:
    """Parse a YAML text; `source` names it in errors.

    Raises:
        XMemError: of the type `error`, with the line: not YAML, a duplicate key, an alias inside
            its own anchor, or beyond the bounds.
    """
    if len(text) > bounds.max_bytes:
        raise error(f'{source}: {len(text)} characters; at most {bounds.max_bytes} are read, make it shorter')
    try:
        _check_bounds(text, bounds)
        loader = (_TextLoader if text_only else _Loader)(text)
        loader.max_digits = bounds.max_digits
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        if mark and fault.context_mark and mark.line > text.rstrip().count('\n'):
            mark = fault.context_mark  # start of the collection that is not closed
        place = f'line {mark.line + 1}, column {mark.column + 1}: ' if mark else ''
        problem = fault.problem or fault.context or 'it cannot be read'
        raise error(f'{source}: not usable YAML: {place}{" ".join(problem.split())}') from fault
    except yaml.reader.ReaderError as fault:
        line = text.encode()[: fault.position].count(b'\n') + 1
        raise error(f'{source}: not usable YAML: line {line}: {fault.reason}') from fault
    except UnicodeEncodeError as fault:
        raise error(f'{source}: not usable YAML: it has characters that UTF-8 cannot encode') from fault
    except yaml.YAMLError as fault:
        raise error(f'{source}: not usable YAML ({" ".join(str(fault).split())})') from fault


def read_json(path: Path, error: type[XMemError], most: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of at most `most` bytes.

    Raises:
        OSError: the file cannot be read.
        XMemError: of the type `error`, naming the file and the line.
    """
    return parse_json(read_text(path, error, most), f'{path}', error)


def parse_json(text: str | bytes, where: str, error: type[XMemError]) -> Any:
    """Parse a JSON text; `where` names it in errors, of the type `error`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as fault:
        raise error(f'{where}: not JSON: line {fault.lineno}, column {fault.colno}: {fault.msg}') from fault
    except RecursionError as fault:
        raise error(f'{where}: not usable JSON: lists or objects are nested too deeply') from fault
    except ValueError as fault:  # too many digits, NaN, bytes that are not text
        raise error(f'{where}: not usable JSON ({fault})') from fault


def read_text(path: Path, error: type[XMemError], max_bytes: int = DEFAULT_BOUNDS.max_bytes) -> str:
    """Read a regular file of UTF-8 text.

    Raises:
        OSError: the file cannot be read, or is a pipe or a device.
        XMemError: of the type `error`: too large, or not UTF-8.
    """
    with atomic.open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise error(f'{path}: too large; at most {max_bytes >> 20} MB are read, make it smaller')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as fault:
        line = data.count(b'\n', 0, fault.start) + 1
        raise error(f'{path}: not a text file in UTF-8 (line {line}, byte {fault.start}: {fault.reason})') from fault


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is not a JSON number')


def _check_bounds(text: str, bounds: YamlBounds) -> None:
    """Check the parser's events before any value is built."""
    open_nodes: list[tuple[str | None, Any]] = []  # anchor and position of each enclosing collection
    sizes: list[list[int]] = []  # their values and depth so far
    extents: dict[str, tuple[int, int]] = {}  # anchor → values, depth
    total = 0  # values in the open collections

    def add(values: int, depth: int, mark: Any) -> None:
        nonlocal total
        if len(open_nodes) + depth > bounds.max_depth:
            raise _fault(f'lists and mappings are nested more than {bounds.max_depth} deep', mark)
        if not sizes:
            return
        sizes[-1][0] += values
        sizes[-1][1] = max(sizes[-1][1], depth)
        total += values
        if total > bounds.max_values:
            raise _fault(f'more than {bounds.max_values} values, aliases expanded', mark)

    for event in yaml.parse(text, Loader=_C_OR_PYTHON_LOADER):
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise _fault(f'the alias *{event.anchor} stands inside its own anchor', mark)
            if event.anchor in extents:  # otherwise the composer reports it
                add(*extents[event.anchor], mark)
        elif isinstance(event, yaml.ScalarEvent):
            if not bounds.merge_keys and (event.value == '<<' or event.tag == _MERGE_TAG):
                raise _fault('merge keys (<<) are not allowed; write out the values', mark)
            if event.anchor is not None:
                extents[event.anchor] = 1, 1
            add(1, 1, mark)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, mark))
            sizes.append([0, 0])
            if len(open_nodes) > bounds.max_depth:
                raise _fault(f'lists and mappings are nested more than {bounds.max_depth} deep', mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, mark = open_nodes.pop()
            values, depth = sizes.pop()
            if anchor is not None:
                extents[anchor] = values + 1, depth + 1
            total -= values
            add(values + 1, depth + 1, mark)


class _StrictLoader(_C_OR_PYTHON_LOADER):
    """Safe loader that refuses duplicate keys and reports every bad value as a YAML error."""

    max_digits = DEFAULT_BOUNDS.max_digits

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse duplicate keys; by default the last one silently wins."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != '<<':
                if (key.tag, key.value) in seen:
                    raise _duplicate(key)
                seen.add((key.tag, key.value))
        own = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        values: set[Any] = set()
        for key in own:
            if key.tag == _MERGE_TAG:
                continue
            value = self.construct_object(key, deep=True)
            if value in values:  # equal in another spelling, such as 1, 0x1, 1.0 and true
                raise _duplicate(key)
            values.add(value)
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; other exceptions of PyYAML's constructors become YAML errors."""
        if node.tag == _INT_TAG and isinstance(node, yaml.ScalarNode) and len(node.value) > _MAX_INT_LENGTH:
            raise _fault(f'an integer of more than {self.max_digits} digits', node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            given = quoted(node.value) if isinstance(node, yaml.ScalarNode) else 'this value'
            raise _fault(f'{given} is not a valid {node.tag.rpartition(":")[2]}', node.start_mark) from error
        if isinstance(value, int) and abs(value) >= 10**self.max_digits:
            raise _fault(f'an integer of more than {self.max_digits} digits', node.start_mark)
        return value


class _Loader(_StrictLoader):
    """Loader of numbers, booleans and null; dates stay text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != 'tag:yaml.org,2002:timestamp']
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _TextLoader(_StrictLoader):
    """Loader of text only: a stamp has more digits than a floating-point number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as PyYAML has it


def _as_text(loader: _TextLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


for _tag in ('int', 'float', 'bool', 'null', 'timestamp', 'binary'):
    _TextLoader.add_constructor(f'tag:yaml.org,2002:{_tag}', _as_text)


def _duplicate(key: yaml.Node) -> yaml.MarkedYAMLError:
    shown = quoted(key.value)[1:-1] if isinstance(key, yaml.ScalarNode) else ''
    return _fault(f'duplicate key {shown}; keep one', key.start_mark)


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)
