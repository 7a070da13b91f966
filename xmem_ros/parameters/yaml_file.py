# SPDX-License-Identifier: MIT
"""A node's parameters out of a parameter file, as ROS reads it, without ROS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xmem_ros.data_files import read_yaml
from xmem_ros.errors import ParameterError
from xmem_ros.parameters.table import Parameters, changed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = 'ros__parameters'
OF_ROS = ('use_sim_time', 'qos_overrides.')  # parameters that are none of the table


def read_parameters(path: Path, node: str = '/xmem') -> Parameters:
    """The parameters that a file sets for a node, defaults elsewhere.

    Arguments:
        path: YAML as `config/track.yaml`; sections later in the file win.
        node: full name; sections of that name count, and those of wildcards.

    Raises:
        ParameterError: the file cannot be read, is none for this node, or has what the table does not allow.
    """
    try:
        content = read_yaml(path, ParameterError)
    except FileNotFoundError:
        raise ParameterError(f'{path}: no such parameter file') from None
    except OSError as error:
        raise ParameterError(f'{path}: not a parameter file that can be read ({error.strerror})') from error
    if not isinstance(content, dict):
        raise ParameterError(f'{path}: not a parameter file: it needs /**: and {KEY}: inside, as config/track.yaml')
    values: dict[str, Any] = {}
    sections = list(_sections(content, ''))
    for pattern, given in sections:
        if _matches(pattern, node):
            values |= dict(_flat(given, ''))
    if not any(_matches(pattern, node) for pattern, _ in sections):
        named = ', '.join(pattern for pattern, _ in sections) or 'none'
        raise ParameterError(f'{path}: no section for the node {node}; sections: {named}; use /** for any node')
    try:
        return changed(Parameters(), {name: value for name, value in values.items() if not name.startswith(OF_ROS)})
    except ParameterError as error:
        raise ParameterError(f'{path}: {error}') from error


def _sections(content: dict[Any, Any], above: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Name or pattern of a node → its parameters; namespaces may be nested."""
    for name, inside in content.items():
        if not isinstance(inside, dict):
            continue
        full = f'{above}/{str(name).strip("/")}'
        if isinstance(inside.get(KEY), dict):
            yield full, inside[KEY]
        yield from _sections({key: value for key, value in inside.items() if key != KEY}, full)


def _matches(pattern: str, node: str) -> bool:
    """`*` stands for one part of a name, `**` for any number of them."""
    bare = re.escape(pattern.strip('/'))
    bare = bare.replace(r'\*\*/', '(?:.*/)?').replace(r'\*\*', '.*').replace(r'\*', '[^/]*')
    return re.fullmatch(bare, node.strip('/')) is not None


def _flat(given: dict[Any, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{above}{name}.')
        else:
            yield f'{above}{name}', value
