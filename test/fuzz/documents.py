# SPDX-License-Identifier: MIT
"""Kinds `seeds`, `suite`, `parameters` and `manifest`: mutated YAML and JSON."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any

import yaml

from fuzz.kinds import Kind, encoded, frames, mask, track
from fuzz.mutation import Source, mutate_bytes, mutate_tree
from fuzz.sandbox import READING, Link, Places

ODD_YAML = [
    '!!python/object/apply:os.mkdir [EXECUTED]',
    '!!python/name:os.system',
    '!!binary aGk=',
    '!!binary "a"',
    '!!int "x"',
    '!!float []',
    '!!timestamp x',
    '2024-99-99',
    '2024-01-01T25:61:61Z',
    '190:20:30',
    '0x',
    '0b2',
    '09',
    '1e400',
    '.inf',
    '.nan',
    '9' * 5000,
    '? [a]',
    '{[a]: b}',
    '{{a: b}: c}',
    '*missing',
    '&a [*a]',
    '&a {<<: *a}',
    '<<: 3',
    '%YAML 9.9',
    '---\n--- 2',
    '\t- x',
    '|9\n  x',
    '"\\x"',
    '"\\ud800"',
    "'",
    '[' * 50,
    '[' * 5000,
    '{a: ' * 3000,
    '- ' * 3000,
    '!<tag:x> y',
    'a: &b [x, *b]',
]


def laughs(width: int = 9, depth: int = 9) -> str:
    """Build nested aliases that expand to `width` to the power of `depth` values."""
    lines = [f'a0: &a0 [{", ".join(["lol"] * width)}]']
    lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * width)}]' for i in range(1, depth)]
    return '{' + ', '.join(lines) + '}'


@functools.cache
def _parsed(data: bytes) -> Any:
    return yaml.safe_load(data)


def dumped(tree: Any, unicode: bool = False) -> bytes:
    """Write YAML, with libyaml if possible."""
    for dumper in (getattr(yaml, 'CSafeDumper', yaml.SafeDumper), yaml.SafeDumper):
        with contextlib.suppress(UnicodeError):
            text = yaml.dump(tree, Dumper=dumper, sort_keys=False, allow_unicode=unicode)
            return str(text).encode(errors='replace')
    raise AssertionError


def mutate_yaml(source: Source, data: bytes, leaves: Any = None) -> bytes:
    """Mutate YAML as values, lines or bytes, with tags, anchors and odd scalars."""
    kind = source.between(0, 9)
    source.note(f'YAML: {kind}')
    if kind < 5:
        tree = mutate_tree(source, _parsed(data), leaves if source.chance(30) else None)
        return dumped(tree, source.chance(50))
    if kind < 8:
        lines = data.decode().splitlines()
        place = source.between(0, len(lines) - 1)
        odd = laughs() if source.chance(15) else source.pick(ODD_YAML) if source.chance(70) else source.text()
        key, colon, _ = lines[place].partition(':')
        lines[place] = f'{key}{colon} {odd}' if source.chance(70) else odd
        return '\n'.join(lines).encode(errors='replace')
    if kind == 8:
        return source.pick([b'\xff\xfe', b'\xef\xbb\xbf', b'']) + mutate_bytes(source, data)
    return source.pick(ODD_YAML).encode(errors='replace') if source.chance(60) else laughs().encode()


SEEDS = """\
- frame: 0
  objects:
    - {name: it, mask: mask.png}
    - {name: thing, id: 7, box: [18, 17, 13, 7]}
- frame: 1
  labels: mask.png
  names: {1: new}
- stamp: 1.066666667
  remove: [thing]
  objects:
    - {correct: it, points: [[10, 10]], beside: [[1.5, 1]]}
"""
SUITE = """\
baseline: base.json
defaults:
  runner: offline
  tolerance: {mean_iou: 0.01}
  parameters: {size: 16, memory: {top_k: 30}}
cases:
  - name: one
    input: walk
    reference: {folder: masks, objects: {1: it}, min_area: 4}
    seeds: {mask: mask.png, at: 0}
    frames: 2
    expect: {mean_iou: 0.5}
  - name: two
    input: walk
    allow_damage: true
    reference: {topic: /labels, bag: walk}
    seeds: {boxes: {it: [6, 6, 12, 10]}}
    image_topic: /camera/image_raw
"""
PARAMETERS = """\
/**:
  ros__parameters:
    size: 240
    min_score: 0.6
    memory:
      top_k: 30
    seed_detections: {enabled: true, classes: [cup, box]}
/front:
  xmem:
    ros__parameters: {device: cpu, qos_overrides: {/image: {subscription: {depth: 3}}}}
"""


def _clip() -> dict[str, bytes]:
    found = {f'walk/{index}.png': encoded(frame, '.png') for index, frame in enumerate(frames())}
    return {**found, 'mask.png': encoded(mask(), '.png')}


def _mutate_seeds(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    return {**files, 'seeds.yaml': mutate_yaml(source, files['seeds.yaml'])}


def _use_seeds(places: Places) -> int:
    given = ('--seed', str(places.input / 'seeds.yaml'), '--format', 'png')
    return track(places, places.input / 'walk', *given)


def _make_suite() -> list[dict[str, bytes]]:
    base = {'version': 1, 'cases': {'one': {'figures': {'mean_iou': 0.9}, 'tracked_frames': 3}}}
    found = {**_clip(), 'suite.yaml': SUITE.encode(), 'base.json': json.dumps(base).encode()}
    return [found]


def _mutate_suite(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    if source.chance(20):
        return {**files, 'base.json': mutate_json(source, files['base.json'])}
    return {**files, 'suite.yaml': mutate_yaml(source, files['suite.yaml'])}


def _use_suite(places: Places) -> int:
    from xmem_ros.cli.main import main

    return main(['regress', str(places.input / 'suite.yaml'), '--dry-run'])


def _mutate_parameters(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    return {'p.yaml': mutate_yaml(source, files['p.yaml'])}


def _use_parameters(places: Places) -> None:
    """Read the file as `xmem-ros track --params` does."""
    from xmem_ros.parameters.yaml_file import read_parameters

    for node in ('/xmem', '/front/xmem'):
        read_parameters(places.input / 'p.yaml', node)


def mutate_json(source: Source, data: bytes) -> bytes:
    """Mutate JSON as values or bytes."""
    kind = source.between(0, 9)
    source.note(f'JSON: {kind}')
    if kind < 7:
        text = json.dumps(mutate_tree(source, json.loads(data)))
        return text.encode()
    if kind < 9:
        return mutate_bytes(source, data)
    return source.pick(
        [b'[' * 100_000, b'{"a":' * 100_000, b'9' * 10_000, b'1e999', b'NaN', b'null', b'"\\ud800"', b'\xff', b'']
    )


def _key() -> Any:
    from xmem_ros.engines.onnx_files import ExportKey

    return ExportKey('0123456789abcdef' * 4, 32, 48, 'float32')


def _make_manifest() -> list[dict[str, bytes]]:
    import hashlib

    key = _key()
    model = b'model' * 100
    about = {'file': 'encoder.onnx', 'bytes': len(model), 'sha256': hashlib.sha256(model).hexdigest()}
    manifest = {**key.described(), 'objects': [1, 2], 'models': {'encoder': about}, 'exported_by': 'tracker'}
    return [{f'{key.folder}/manifest.json': json.dumps(manifest).encode(), f'{key.folder}/encoder.onnx': model}]


def _mutate_manifest(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    name = f'{_key().folder}/manifest.json'
    found: dict[str, bytes | Link] = {**files, name: mutate_json(source, files[name])}
    if source.chance(40):  # files outside the folder
        about = json.loads(files[name])
        file = source.pick(['../../canary/keep.txt', '../../canary/sub/keep.onnx', '../../../etc/passwd', '/dev/zero'])
        file = source.text() if source.chance(40) else file
        about['models'] = {source.text(): {'file': file, 'bytes': source.pick([7, 0, 500]), 'sha256': '0' * 64}}
        source.note(f'file {file[:40]!r}')
        found[name] = json.dumps(about).encode()
    if source.chance(10):
        found[f'{_key().folder}/encoder.onnx'] = Link('/dev/zero')
    return found


def _use_manifest(places: Places) -> None:
    import os

    from xmem_ros.engines import onnx_files

    os.environ['XMEM_ROS_ONNX'] = str(places.input)
    key = _key()
    onnx_files.newest_size(key.weights, key.precision, 0)
    onnx_files.newest_size(key.weights, key.precision, 32)
    onnx_files.find_models(key)


def kinds() -> list[Kind]:
    """List the kinds of this module."""
    from xmem_ros.errors import EngineError, ParameterError

    anywhere = frozenset({READING})  # they may name masks and recordings in any folder

    return [
        Kind('seeds', lambda: [{**_clip(), 'seeds.yaml': SEEDS.encode()}], _mutate_seeds, _use_seeds, may=anywhere),
        Kind('suite', _make_suite, _mutate_suite, _use_suite, may=anywhere),
        Kind(
            'parameters',
            lambda: [{'p.yaml': PARAMETERS.encode()}],
            _mutate_parameters,
            _use_parameters,
            (ParameterError,),
        ),
        Kind('manifest', _make_manifest, _mutate_manifest, _use_manifest, (EngineError,)),
    ]
