# SPDX-License-Identifier: MIT
"""Kinds `image` and `message`: mutated ROS messages at the conversions of the node.

An input is a message as JSON, with data in hexadecimal; the conversions take any object with its
fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from fuzz.kinds import Kind, encoded, frames, mask
from fuzz.media import KINDS, mutate_image
from fuzz.mutation import Source, mutate_bytes, paths_of
from fuzz.sandbox import Link, Places

RANGES = {'sec': (-(2**31), 2**31 - 1), 'kind': (0, 255), 'is_bigendian': (0, 255), 'label': (0, 255)}
LABELS = (-128, 127)
ENCODINGS = [
    'rgb8',
    'mono8',
    'bgra16',
    '8UC1',
    '16UC1',
    '32FC1',
    'bayer_rggb8',
    'nv12',
    'yuyv',
    'yuv422',
    '64FC4',
    'rgb99',
]
FORMATS = [
    'jpeg',
    'png',
    'rgb8; jpeg compressed bgr8',
    'bayer_rggb8; jpeg compressed ',
    'bayer_x; png',
    '16UC1; compressedDepth',
]


def header() -> dict[str, Any]:
    """Build a std_msgs/Header."""
    return {'stamp': {'sec': 17, 'nanosec': 5}, 'frame_id': 'camera'}


def image(pixels: np.ndarray, encoding: str) -> dict[str, Any]:
    """Build a sensor_msgs/Image of pixels H×W or H×W×C."""
    height, width = pixels.shape[:2]
    return {
        'header': header(),
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': 0,
        'step': pixels.nbytes // height,
        'data': pixels.tobytes().hex(),
    }


def namespace(tree: Any, key: str = '') -> Any:
    """Turn nested dictionaries into a message."""
    if isinstance(tree, dict):
        return SimpleNamespace(**{name: namespace(value, name) for name, value in tree.items()})
    if isinstance(tree, list):
        return [namespace(item) for item in tree]
    return bytes.fromhex(tree) if key == 'data' else tree


def mutate_message(source: Source, tree: Any, odd: dict[str, Callable[[Any], Any]]) -> Any:
    """Mutate values within the types of their fields.

    odd: name of a field → function that replaces its value.
    """
    tree = json.loads(json.dumps(tree))
    for _ in source.several(6):
        path = source.pick(paths_of(tree))
        parent = tree
        for step in path[:-1]:
            parent = parent[step]
        key, value = path[-1], parent[path[-1]]
        name = str(next((step for step in reversed(path) if isinstance(step, str)), ''))
        source.note(f'{".".join(map(str, path))}')
        if isinstance(value, list):
            if name not in ('p', 'k', 'd'):
                parent[key] = value * source.pick([0, 2, 3, 300])
        elif isinstance(value, dict):
            continue
        elif name in odd:
            parent[key] = odd[name](value)
        elif name == 'data':
            parent[key] = mutate_bytes(source, bytes.fromhex(value)).hex()
        elif isinstance(value, bool):
            parent[key] = not value
        elif isinstance(value, int):
            low, high = LABELS if name == 'point_labels' else RANGES.get(name, (0, 2**32 - 1))
            parent[key] = source.field(low, high)
        elif isinstance(value, float):
            parent[key] = float(min(max(source.number(), -1e308), 1e308)) if source.chance(90) else float('nan')
        else:
            parent[key] = source.text().encode('utf-8', 'replace').decode()
    return tree


def _make_image() -> list[dict[str, bytes]]:
    frame = frames()[0]
    found: list[Any] = [
        image(frame, 'rgb8'),
        image(frame[..., 0].copy(), 'mono8'),
        image(frame[..., 0].copy(), 'bayer_rggb8'),
    ]
    found += [image(frame[..., 0].astype(np.uint16), '16UC1'), image(frame[..., 0].astype(np.float32), '32FC1')]
    found += [image(np.zeros((24, 32, 2), np.uint8), 'yuyv'), image(frame.astype(np.uint16), 'rgb16')]
    found.append({**image(np.zeros((36, 32), np.uint8), 'nv12'), 'height': 24})
    for suffix in ('.png', '.jpg'):
        found.append({'header': header(), 'format': 'jpeg', 'data': encoded(frame, suffix).hex()})
    return [{'message.json': json.dumps(item).encode()} for item in found]


def _mutate_image(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    tree = json.loads(files['message.json'])
    if 'format' in tree and source.chance(80):
        data = bytes.fromhex(tree['data'])
        suffix = source.pick(sorted(KINDS)) if source.chance(15) else '.png' if data[:1] == b'\x89' else '.jpg'
        tree['data'] = mutate_image(source, data, suffix).hex()
        tree['format'] = source.pick(FORMATS)
    else:
        odd = {'encoding': lambda _: source.pick(ENCODINGS) if source.chance(80) else source.text()}
        if 'step' in tree and source.chance(30):
            odd['step'] = lambda _: source.pick([0, 1, 31, 2**31, 2**32 - 1])
        tree = mutate_message(source, tree, odd)
    return {'message.json': json.dumps(tree).encode()}


def _use_image(places: Places) -> int:
    """Read the message as image, mask and depth; one success counts as accepted."""
    from xmem_ros.conversions.compressed_images import rgb_of
    from xmem_ros.conversions.images import depth_from_image, mask_from_image
    from xmem_ros.errors import FrameError

    message = namespace(json.loads((places.input / 'message.json').read_text()))
    readers: list[Callable[[Any], Any]] = [rgb_of]
    if not hasattr(message, 'format'):
        readers += [mask_from_image, depth_from_image]
    refused = 0
    for read in readers:
        try:
            read(message)
        except FrameError as error:
            refused += 1
            print(ascii(str(error)))
    return 2 if refused == len(readers) else 0


def _make_message() -> list[dict[str, bytes]]:
    box = {'x_offset': 6, 'y_offset': 6, 'width': 12, 'height': 10, 'do_rectify': False}
    empty = {**image(mask(), 'mono8'), 'height': 0, 'width': 0, 'step': 0, 'data': ''}
    seed = {'id': 0, 'name': 'cup', 'kind': 0, 'mask': empty, 'box': box, 'points': [], 'point_labels': []}
    seeds = [
        {**seed, 'mask': image(mask(), 'mono8')},
        {**seed, 'kind': 1, 'id': 3},
        {
            **seed,
            'kind': 2,
            'points': [{'x': 10.0, 'y': 10.0, 'z': 0.0}, {'x': 1.0, 'y': 1.0, 'z': 0.0}],
            'point_labels': [1, 0],
        },
        {**seed, 'kind': 3, 'mask': image(mask(), 'mono8')},
    ]
    place = {'position': {'x': 12.0, 'y': 11.0}, 'theta': 0.1}
    likely = {'hypothesis': {'class_id': 'cup', 'score': 0.9}}
    detection = {'id': '', 'results': [likely, likely], 'bbox': {'center': place, 'size_x': 12.0, 'size_y': 10.0}}
    info = {
        'header': header(),
        'height': 24,
        'width': 32,
        'd': [0.0],
        'k': [30.0, 0.0, 16.0, 0.0, 30.0, 12.0, 0.0, 0.0, 1.0],
        'p': [30.0, 0.0, 16.0, 0.0, 0.0, 30.0, 12.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        'binning_x': 0,
        'binning_y': 0,
        'roi': {**box, 'x_offset': 0, 'y_offset': 0, 'width': 0, 'height': 0},
    }
    found: list[Any] = [{'seeds': [item]} for item in seeds]
    found.append({'seeds': seeds})
    found.append({'detections': [detection, detection], 'header': header()})
    found.append({'info': info, 'depth': image(np.full((24, 32), 900, np.uint16), '16UC1')})
    return [{'message.json': json.dumps(item).encode()} for item in found]


def _mutate_message(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    tree = mutate_message(source, json.loads(files['message.json']), {})
    return {'message.json': json.dumps(tree).encode()}


def _use_message(places: Places) -> None:
    """Read seeds, detections, or depth with its camera."""
    from xmem_ros.conversions.images import depth_from_image, stamp_ns
    from xmem_ros.conversions.seeds import read_seeds
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.seeding.seeder import make_seeder
    from xmem_ros.stream.depth import camera_of, locate, scaled_labels
    from xmem_ros.stream.detection_policy import candidates_of, select_candidates

    message = namespace(json.loads((places.input / 'message.json').read_text()))
    if hasattr(message, 'seeds'):
        read_seeds(message.seeds, frames()[0], 16, make_seeder)
    elif hasattr(message, 'detections'):
        stamp_ns(message.header.stamp)
        policy = Parameters().seed_detections
        select_candidates(
            candidates_of(message, policy), [(0, 0, 5, 5)], mask().shape, policy.max_iou, policy.max_per_message
        )
    else:
        depth = depth_from_image(message.depth)
        labels = scaled_labels(mask(), depth.shape[:2])
        camera = camera_of(message.info).scaled(depth.shape[:2])
        locate(depth, labels, 1, (6, 6, 12, 10), camera)


def kinds() -> list[Kind]:
    """List the kinds of this module."""
    from xmem_ros.errors import FrameError, RequestError, SeedError

    return [
        Kind('image', _make_image, _mutate_image, _use_image),
        Kind('message', _make_message, _mutate_message, _use_message, (FrameError, RequestError, SeedError)),
    ]
