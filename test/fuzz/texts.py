# SPDX-License-Identifier: MIT
"""Kinds `seeds`, `suite`, `parameters` and `manifest`: YAML and JSON."""

from __future__ import annotations

import json
from typing import Any

import yaml

from fuzz.chance import Chance, spoil_bytes, spoil_tree
from fuzz.kind import Kind, encoded, frames, mask, track
from fuzz.sandbox import Link, Places

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
    """YAML whose aliases stand for `width` to the power of `depth` values."""
    lines = [f'a0: &a0 [{", ".join(["lol"] * width)}]']
    lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * width)}]' for i in range(1, depth)]
    return '{' + ', '.join(lines) + '}'


def spoil_yaml(chance: Chance, data: bytes, leaves: Any = None) -> bytes:
    """Edit YAML as values, as text, or as bytes; with what only YAML has."""
    kind = chance.whole(0, 9)
    chance.note(f'YAML: {kind}')
    if kind < 5:
        tree = spoil_tree(chance, yaml.safe_load(data), leaves if chance.often(30) else None)
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=chance.often(50))
        return text.encode(errors='replace')
    if kind < 8:
        lines = data.decode().splitlines()
        place = chance.whole(0, len(lines) - 1)
        odd = laughs() if chance.often(15) else chance.pick(ODD_YAML) if chance.often(70) else chance.text()
        key, colon, _ = lines[place].partition(':')
        lines[place] = f'{key}{colon} {odd}' if chance.often(70) else odd
        return '\n'.join(lines).encode(errors='replace')
    if kind == 8:
        return chance.pick([b'\xff\xfe', b'\xef\xbb\xbf', b'']) + spoil_bytes(chance, data)
    return chance.pick(ODD_YAML).encode(errors='replace') if chance.often(60) else laughs().encode()


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


def _spoil_seeds(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    return {**files, 'seeds.yaml': spoil_yaml(chance, files['seeds.yaml'])}


def _use_seeds(places: Places) -> int:
    given = ('--seed', str(places.input / 'seeds.yaml'), '--format', 'png')
    return track(places, places.input / 'walk', *given)


def _make_suite() -> list[dict[str, bytes]]:
    base = {'version': 1, 'cases': {'one': {'figures': {'mean_iou': 0.9}, 'tracked_frames': 3}}}
    found = {**_clip(), 'suite.yaml': SUITE.encode(), 'base.json': json.dumps(base).encode()}
    return [found]


def _spoil_suite(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    if chance.often(20):
        return {**files, 'base.json': spoil_json(chance, files['base.json'])}
    return {**files, 'suite.yaml': spoil_yaml(chance, files['suite.yaml'])}


def _use_suite(places: Places) -> int:
    from xmem_ros.cli.main import main

    return main(['regress', str(places.input / 'suite.yaml'), '--dry-run'])


def _spoil_parameters(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    return {'p.yaml': spoil_yaml(chance, files['p.yaml'])}


def _use_parameters(places: Places) -> None:
    """What `xmem-ros track --params` reads a file with."""
    from xmem_ros.parameters.yaml_file import read_parameters

    for node in ('/xmem', '/front/xmem'):
        read_parameters(places.input / 'p.yaml', node)


def spoil_json(chance: Chance, data: bytes) -> bytes:
    """Edit JSON as values or as bytes; with what only JSON has."""
    kind = chance.whole(0, 9)
    chance.note(f'JSON: {kind}')
    if kind < 7:
        text = json.dumps(spoil_tree(chance, json.loads(data)))
        return text.encode()
    if kind < 9:
        return spoil_bytes(chance, data)
    return chance.pick(
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


def _spoil_manifest(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    name = f'{_key().folder}/manifest.json'
    found: dict[str, bytes | Link] = {**files, name: spoil_json(chance, files[name])}
    if chance.often(40):  # what a stranger would name on purpose
        about = json.loads(files[name])
        file = chance.pick(['../../canary/keep.txt', '../../canary/sub/keep.onnx', '../../../etc/passwd', '/dev/zero'])
        file = chance.text() if chance.often(40) else file
        about['models'] = {chance.text(): {'file': file, 'bytes': chance.pick([7, 0, 500]), 'sha256': '0' * 64}}
        chance.note(f'file {file[:40]!r}')
        found[name] = json.dumps(about).encode()
    if chance.often(10):
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
    """The kinds of this module."""
    from xmem_ros.errors import EngineError, ParameterError

    return [
        Kind('seeds', lambda: [{**_clip(), 'seeds.yaml': SEEDS.encode()}], _spoil_seeds, _use_seeds),
        Kind('suite', _make_suite, _spoil_suite, _use_suite),
        Kind(
            'parameters',
            lambda: [{'p.yaml': PARAMETERS.encode()}],
            _spoil_parameters,
            _use_parameters,
            (ParameterError,),
        ),
        Kind('manifest', _make_manifest, _spoil_manifest, _use_manifest, (EngineError,)),
    ]
