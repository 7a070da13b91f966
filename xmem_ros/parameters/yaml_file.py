# SPDX-License-Identifier: MIT
"""Reader of ROS parameter files, without ROS."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from xmem_ros.data_files import read_yaml
from xmem_ros.errors import ParameterError
from xmem_ros.outside_text import for_log
from xmem_ros.parameters.table import Parameters, changed, without_unknown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = 'ros__parameters'
log = logging.getLogger(__name__)
FOREIGN = ('use_sim_time', 'qos_overrides.')  # prefixes of parameters outside the table


def read_parameters(path: Path, node: str = '/xmem') -> Parameters:
    """Read the parameters that a file sets for a node; the others keep their defaults.

    Arguments:
        path: YAML as in `config/track.yaml`; later sections override earlier ones.
        node: full name; sections of this name and of matching wildcards apply.

    Raises:
        ParameterError: the file cannot be read, has no section for the node, or has values that the
            table does not allow. Unknown names are left out with a warning, unless the file has
            `strict_parameters: true`.
    """
    try:
        content = read_yaml(path, ParameterError)
    except FileNotFoundError:
        raise ParameterError(f'{path}: no such parameter file') from None
    except OSError as error:
        raise ParameterError(f'{path}: the parameter file cannot be read ({error.strerror})') from error
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
    ours = {name: value for name, value in values.items() if not name.startswith(FOREIGN)}
    known, warning = without_unknown(ours)
    if warning:
        log.warning('%s: %s', path, for_log(warning))
    try:
        return changed(Parameters(), known)
    except ParameterError as error:
        raise ParameterError(f'{path}: {error}') from error


def _sections(content: dict[Any, Any], above: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield name or pattern of a node → its parameters; namespaces may be nested."""
    for name, inside in content.items():
        if not isinstance(inside, dict):
            continue
        full = f'{above}/{str(name).strip("/")}'
        if isinstance(inside.get(KEY), dict):
            yield full, inside[KEY]
        yield from _sections({key: value for key, value in inside.items() if key != KEY}, full)


def _matches(pattern: str, node: str) -> bool:
    """Match a node with a pattern: `*` is one part of a name, `**` any number of parts."""
    bare = re.escape(pattern.strip('/'))
    bare = bare.replace(r'\*\*/', '(?:.*/)?').replace(r'\*\*', '.*').replace(r'\*', '[^/]*')
    return re.fullmatch(bare, node.strip('/')) is not None


def _flat(given: dict[Any, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{above}{name}.')
        else:
            yield f'{above}{name}', value
