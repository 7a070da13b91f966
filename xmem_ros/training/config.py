# SPDX-License-Identifier: MIT
"""Configuration of a training run, read from YAML; docs/training.md has the keys as tables."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmem_ros.data_files import read_yaml
from xmem_ros.errors import ParameterError, quoted
from xmem_ros.network.config import CONFIGS

PRECISIONS = ('bfloat16', 'float16', 'float32')
SCHEDULES = ('cosine', 'steps')
MOST = 1_000_000_000  # maximum of whole numbers that have no smaller one
# maxima of the keys that determine memory and processes, or would overflow
LARGEST = {
    'batch': 65_536,
    'workers': 256,
    'shorter_side': 8192,
    'clips.size': 4096,
    'clips.frames': 1000,
    'clips.objects': 254,
    'clips.bend': 100,
    'clips.perspective': 100,
    'clips.light': 100,
    'clips.colour': 10,
    'clips.growth_factor': 1000,
}
MOST_CLIP_PIXELS = 1 << 27  # of all frames of a clip; 64 frames of 1448 px
MOST_BATCH_PIXELS = 1 << 30  # of all clips of a step; 12 GB as float32


def option(default: Any, what: str) -> Any:
    """Make a field with its description."""
    return field(default=default, metadata={'what': what})


@dataclass(frozen=True)
class ClipConfig:
    """How clips are generated; lengths in frames, sizes in px, shares and chances 0…1."""

    size: int = option(128, 'width and height of a clip, px; a multiple of 16')
    frames: int = option(3, 'frames of a clip; the first is given with its masks')
    objects: int = option(2, 'maximum number of objects in a clip')
    max_skip: int = option(12, 'maximum number of video frames from one frame of a clip to the next')
    skips: tuple[tuple[float, int], ...] = option(
        (), 'schedule of `max_skip`: pairs [share of the run from which it applies, frames], in order'
    )
    still_share: float = option(1 / 3, 'share of clips made of one picture under synthetic motion')
    paste: float = option(0.5, 'chance that another object moves across the clip')
    paste_labelled: float = option(0.6, 'chance that the pasted object is tracked too; otherwise it is a distractor')
    frame_share: float = option(0.0, 'share of one-picture clips that use a frame of a video')
    region_share: float = option(0.0, 'share of one-picture clips whose object is a random patch of the picture')
    patch_share: float = option(0.0, 'share of pasted objects that are a random patch of a picture')
    bend: float = option(0.0, 'strength of the deformation of pictures and pasted objects, px in 100 px')
    absence: float = option(0.0, 'chance that other footage, without the object, is cut in after the first frame')
    zoom: tuple[float, float] = option(
        (0.45, 1.25), '[from, to]: range of the scale, px of the clip per px of footage with a shorter side of 256 px'
    )
    colour: float = option(0.3, 'strength of the variation of brightness, contrast, gamma, saturation and tint')
    blur: float = option(0.15, 'chance of motion blur')
    growth: float = option(0.0, 'chance that the whole clip zooms in or out, up to `growth_factor` times')
    growth_factor: float = option(3.0, 'maximum zoom from the first frame to the last')
    perspective: float = option(0.0, 'strength of the out-of-plane rotation of pictures and pasted objects')
    backdrop: bool = option(False, 'fill the area beyond the picture with another picture; otherwise it is black')
    light: float = option(0.0, 'strength of the change of brightness from the first frame to the last')
    small: float = option(0.0, 'chance that a clip shows its object small, at 0.5 to 2 % of the frame')


@dataclass(frozen=True)
class TrainingConfig:
    """Training run; `videos`, `subsets` and `stills` are relative to the data folder."""

    network: str = option('compact', f'shape of a new network: {", ".join(CONFIGS)}; ignored with `start_from`')
    start_from: str = option('', "initial weights: a name, a file, or another run's last.pt; empty: random")
    videos: tuple[str, ...] = option(
        (), 'folders of videos (JPEGImages/SEQ and Annotations/SEQ, as in DAVIS, YouTube-VOS and MOSE), or bags'
    )
    subsets: tuple[str, ...] = option(
        (), 'for each entry of `videos` a text file with the names of the sequences to use; empty: all of them'
    )
    repeat: tuple[int, ...] = option((), 'sampling weight of each entry of `videos`; empty: 1')
    strides: tuple[int, ...] = option(
        (), 'for each entry of `videos`: camera frames from one mask to the next; `max_skip` is divided by it'
    )
    image_topic: str = option('', 'image topic, for bags with several')
    stills: tuple[str, ...] = option(
        (), 'folders of pictures: images/ and masks/, or picture.jpg beside picture.png, also in folders of classes'
    )
    still_repeat: tuple[int, ...] = option((), 'sampling weight of each entry of `stills`; empty: 1')
    leave_out: tuple[str, ...] = option((), 'held-back videos: not trained on; scored if `validate_every` is set')
    hold_back: float = option(0.0, 'share of each video, at its end, that is held back in the same way')
    validate_every: int = option(0, 'iterations between validations on held-back footage; 0: never')
    shorter_side: int = option(256, 'maximum shorter side of footage, px; larger footage is scaled down')
    cache_mb: int = option(6000, 'MB of footage kept in memory by each process; the rest is read from disk on demand')
    verify: bool = option(True, 'before the first step, also check footage that is not kept in memory, by decoding it')
    clips: ClipConfig = field(default_factory=ClipConfig, metadata={'what': 'how clips are made, see below'})
    iterations: int = option(6000, 'number of optimiser steps')
    batch: int = option(8, 'clips per step, over all processes')
    workers: int = option(1, 'processes per training process that make clips; 0: the training process makes them')
    learning_rate: float = option(1e-3, 'maximum learning rate')
    final_learning_rate: float = option(1e-5, 'learning rate at the end')
    schedule: str = option('cosine', '`cosine`: a smooth fall; `steps`: a fall to a tenth at each of `steps`')
    steps: tuple[int, ...] = option((), 'iterations at which the rate falls to a tenth')
    warmup: int = option(200, 'iterations over which the rate rises from 0')
    frozen: tuple[str, ...] = option(
        (), 'prefixes of the names of modules that are not trained; their batch norms are fixed too'
    )
    trunk_rate: float = option(1.0, 'learning rate of the key encoder without laterals, as a share of `learning_rate`')
    key_rate: float = option(0.05, 'learning rate of the key projection, as a share of `learning_rate`')
    weight_decay: float = option(0.01, 'weight decay of AdamW; none on biases and norms')
    gradient_clip: float = option(3.0, 'maximum norm of the gradient; 0: no limit')
    bootstrap: tuple[float, float, float] = option(
        (500, 1500, 0.3),
        '[from, to, share]: between these iterations the share of (hardest) pixels in the loss falls from 1 to `share`',
    )
    deep_update: float = option(0.2, 'chance of the deep update of sensory memory on each frame after the first')
    reference_frames: int = option(
        0, 'maximum number of memory frames that are read, the first and random others; 0: all'
    )
    precision: str = option('bfloat16', f'precision of the network in training: {", ".join(PRECISIONS)}')
    ema: float = option(0.998, 'decay of the moving average of the weights; the average is the result')
    seed: int = option(0, 'seed of all random numbers')
    save_every: int = option(250, 'iterations between checkpoints')
    pictures_every: int = option(500, 'iterations between pictures for TensorBoard; 0: none')


def read_config(path: Path, **overrides: Any) -> TrainingConfig:
    """Read a run's YAML file; raises `ParameterError` for an unknown key or an invalid value."""
    try:
        data = read_yaml(path, ParameterError) or {}
    except OSError as error:
        raise ParameterError(f'{path}: cannot be read ({error.strerror})') from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ParameterError(f'{path}: expected keys and values, as in config/training/compact_1.yaml')
    data.update({key: value for key, value in overrides.items() if value is not None})
    clips = data.pop('clips', None) or {}
    if not isinstance(clips, dict) or not all(isinstance(key, str) for key in clips):
        raise ParameterError(f'{path}: clips must be keys and values, not {quoted(clips)}')
    clip_config = ClipConfig(**_checked(path, ClipConfig, clips, 'clips.'))
    config = TrainingConfig(clips=clip_config, **_checked(path, TrainingConfig, data, ''))
    _check_values(path, config)
    return config


def _checked(path: Path, kind: type, data: dict[str, Any], prefix: str) -> dict[str, Any]:
    known = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(known)):
        names = ', '.join(prefix + name for name in unknown)
        raise ParameterError(f'{path}: unknown key {names}; known: {", ".join(sorted(known))}')
    out = {}
    for name, value in data.items():
        example = known[name].default
        if isinstance(example, tuple):
            value = _list(path, prefix + name, value, _items[name])
        else:
            value = _single(path, prefix + name, value, type(example))
        out[name] = value
    return out


_KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}
# item type of each list
_items: dict[str, type] = {
    **dict.fromkeys(('videos', 'subsets', 'stills', 'leave_out', 'frozen'), str),
    **dict.fromkeys(('repeat', 'strides', 'still_repeat', 'steps'), int),
    **dict.fromkeys(('bootstrap', 'zoom'), float),
    'skips': tuple,
}


def _single(path: Path, name: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        hint = '; YAML reads 1e-4 as text, write 1.0e-4' if isinstance(value, str) and kind is float else ''
        raise ParameterError(f'{path}: {name} must be {_KINDS[kind]}, not {quoted(value)}{hint}')
    if isinstance(value, float) and not math.isfinite(value):
        raise ParameterError(f'{path}: {name} is {value}; it must be a finite number')
    if isinstance(value, int) and abs(value) > MOST:
        raise ParameterError(f'{path}: {name} is {quoted(value)}; it must be at most {MOST}')
    return value


def _list(path: Path, name: str, value: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ParameterError(f'{path}: {name} must be a list, not {quoted(value)}')
    if kind is not tuple:
        return tuple(_single(path, name, item, kind) for item in value)
    for item in value:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise ParameterError(f'{path}: {name} must hold pairs [share, frames], not {quoted(item)}')
    return tuple((_single(path, name, item[0], float), _single(path, name, item[1], int)) for item in value)


def _check_values(path: Path, config: TrainingConfig) -> None:
    clips = config.clips
    shares = {f'clips.{n}': getattr(clips, n) for n in ('still_share', 'paste', 'paste_labelled', 'absence', 'blur')}
    shares |= {
        f'clips.{n}': getattr(clips, n) for n in ('frame_share', 'region_share', 'patch_share', 'growth', 'small')
    }
    shares |= {'deep_update': config.deep_update, 'hold_back': config.hold_back, 'ema': config.ema}
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ParameterError(f'{path}: {name} is {value}; it must be from 0 to 1')
    for name in ('seed', 'workers', 'warmup', 'validate_every', 'pictures_every', 'cache_mb', 'reference_frames'):
        if getattr(config, name) < 0:
            raise ParameterError(f'{path}: {name} is {getattr(config, name)}; it must be 0 or more')
    for name in ('learning_rate', 'final_learning_rate', 'weight_decay', 'gradient_clip', 'key_rate', 'trunk_rate'):
        if getattr(config, name) < 0:
            raise ParameterError(f'{path}: {name} is {getattr(config, name)}; it must be 0 or more')
    for name in ('perspective', 'light', 'bend', 'colour'):
        if getattr(clips, name) < 0:
            raise ParameterError(f'{path}: clips.{name} is {getattr(clips, name)}; it must be 0 or more')
    if clips.growth_factor < 1:
        raise ParameterError(f'{path}: clips.growth_factor is {clips.growth_factor}; it must be at least 1')
    if config.hold_back > 0.9:
        raise ParameterError(
            f'{path}: hold_back is {config.hold_back}; it must be at most 0.9, to leave frames to train on'
        )
    positive = {'iterations': config.iterations, 'batch': config.batch, 'save_every': config.save_every}
    positive |= {'clips.objects': clips.objects, 'clips.max_skip': clips.max_skip, 'shorter_side': config.shorter_side}
    for name, count in positive.items():
        if count < 1:
            raise ParameterError(f'{path}: {name} is {count}; it must be at least 1')
    for name, most in LARGEST.items():
        count = getattr(clips, name.removeprefix('clips.')) if name.startswith('clips.') else getattr(config, name)
        if count > most:
            raise ParameterError(f'{path}: {name} is {count}; it must be at most {most}')
    for name, found, allowed in (
        ('network', config.network, tuple(CONFIGS)),
        ('precision', config.precision, PRECISIONS),
        ('schedule', config.schedule, SCHEDULES),
    ):
        if found not in allowed:
            raise ParameterError(f'{path}: {name} is {quoted(found)}; it must be one of {", ".join(allowed)}')
    pixels = clips.frames * clips.size**2
    if pixels > MOST_CLIP_PIXELS or pixels * config.batch > MOST_BATCH_PIXELS:
        raise ParameterError(
            f'{path}: {config.batch} clips of {clips.frames} frames of {clips.size}×{clips.size} px do not fit into '
            f'memory; at most {MOST_CLIP_PIXELS} px a clip and {MOST_BATCH_PIXELS} px a step are allowed: lower batch, '
            'clips.frames or clips.size'
        )
    if clips.size < 16 or clips.size % 16:
        raise ParameterError(f'{path}: clips.size is {clips.size}; it must be a multiple of 16')
    if clips.frames < 2:
        raise ParameterError(
            f'{path}: clips.frames is {clips.frames}; it must be at least 2, one to seed and one to track'
        )
    for name, of in (('repeat', 'videos'), ('subsets', 'videos'), ('strides', 'videos'), ('still_repeat', 'stills')):
        values, others = getattr(config, name), getattr(config, of)
        if values and len(values) != len(others):
            raise ParameterError(
                f'{path}: {name} has {len(values)} entries, but {of} has {len(others)}; the numbers must be equal'
            )
        if name != 'subsets' and any(value < 1 for value in values):
            raise ParameterError(f'{path}: {name} is {list(values)}; each value must be at least 1')
    if len(config.bootstrap) != 3 or not 0 < config.bootstrap[2] <= 1:
        raise ParameterError(f'{path}: bootstrap is {list(config.bootstrap)}; it must be [from, to, share above 0]')
    if any(not 0 <= share <= 1 or skip < 1 for share, skip in clips.skips):
        raise ParameterError(f'{path}: clips.skips must hold pairs [share from 0 to 1, frames of at least 1]')
    if not config.videos and not config.stills:
        raise ParameterError(f'{path}: neither videos nor stills are given; add the folders to train on')
    if len(clips.zoom) != 2 or not 0.001 <= clips.zoom[0] <= clips.zoom[1] <= 1000:
        raise ParameterError(
            f'{path}: clips.zoom is {list(clips.zoom)}; it must be [from, to], both 0.001 to 1000, in ascending order'
        )


def table() -> str:
    """Format all keys as Markdown tables."""
    parts = []
    for kind, title in ((TrainingConfig, 'The run'), (ClipConfig, 'Clips: keys of `clips`')):
        lines = [f'### {title}', '', '| key | default | description |', '| --- | --- | --- |']
        for f in dataclasses.fields(kind):
            default = '' if f.default is dataclasses.MISSING else _written(f.default)
            lines.append(f'| `{f.name}` | {default} | {f.metadata["what"]} |')
        parts.append('\n'.join(lines))
    return '\n\n'.join(parts) + '\n'


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return f'`{list(value)}`'
    if isinstance(value, float):
        return f'`{value:.4g}`'
    return f'`{value}`' if value != '' else ''


if __name__ == '__main__':
    print(table(), end='')
