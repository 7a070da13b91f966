# SPDX-License-Identifier: MIT
"""The node's parameters, as one table: declaration, validation, live updates and documentation come from it.

`python -m xmem_ros.parameters.docs --write` writes config/track.yaml and docs/parameters.md.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import ParameterError, quoted
from xmem_ros.memory.config import MemoryConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Value = bool | int | float | str | tuple[str, ...]

START, CONFIGURE, LIVE = 'start', 'configure', 'live'
WHEN = {
    START: 'only at the start of the node',
    CONFIGURE: 'while the node is unconfigured',
    LIVE: 'at any time',
}

LEAST_SIZE = 16  # px, the network's stride
KNOWN, NONE = 'known', 'none'  # of `prepare`


@dataclass(frozen=True)
class Rule:
    """What a parameter is and what it may be."""

    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    change: str = CONFIGURE  # START, CONFIGURE or LIVE
    unit: str = ''

    def allowed(self) -> str:
        """In words; empty where anything goes."""
        if self.choices:
            return ', '.join(self.choices)
        return '' if self.low is None or self.high is None else f'{_plain(self.low)}…{_plain(self.high)}'


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _is(default: Value, description: str, **rule: Any) -> Any:
    return field(default=default, metadata={'rule': Rule(description, **rule)})


@dataclass(frozen=True)
class MemoryParameters:
    """Sizes of the memory; defaults as published."""

    max_working_frames: int = _is(10, 'Frames in working memory at which consolidation starts.', low=2, high=1000)
    min_working_frames: int = _is(5, 'Frames that consolidation leaves in working memory.', low=1, high=999)
    long_term: bool = _is(True, 'Keep prototypes of older frames. Off: older frames are forgotten.')
    long_term_elements: int = _is(10_000, 'Maximum number of prototypes in long-term memory.', low=1, high=1_000_000)
    prototypes: int = _is(128, 'Prototypes made by one consolidation.', low=1, high=100_000)
    top_k: int = _is(30, 'Memory positions read by each position of a frame.', low=1, high=1000)
    anchors_per_object: int = _is(
        3, 'Anchor frames of each object: its first seed and its latest corrections.', low=2, high=100
    )
    max_anchor_frames: int = _is(4, 'Room for anchors, in whole frames.', low=1, high=254)
    usage: str = _is(
        'own',
        'Usage that decides which positions are kept. own: reads from inside the owner, in images in which it is '
        'visible. all: reads from anywhere, as published; an object out of sight fades.',
        choices=('own', 'all'),
    )
    quotas: bool = _is(
        True,
        'Objects share half of long-term memory equally; the background has the other half. Off, as published: the '
        'most used positions stay.',
    )
    guard: bool = _is(
        True,
        'Memorise an object that is not visible as absent. Off, as published: guesses are memorised too.',
    )
    budget_mb: float = _is(
        0.0,
        'Limit of all stores together; long-term memory is made as large as it allows. 0: no limit.',
        low=0.0,
        high=1_000_000.0,
        unit='MB',
    )


@dataclass(frozen=True)
class DepthParameters:
    """Where objects are in space, from depth images."""

    enabled: bool = _is(
        False,
        'Publish ~/detections_3d from depth/image, aligned to the colour image, and depth/camera_info. Needs '
        'vision_msgs.',
    )
    slop: float = _is(
        0.02,
        'Maximum difference of stamps between an image and its depth image.',
        low=0.0,
        high=10.0,
        unit='s',
        change=LIVE,
    )


@dataclass(frozen=True)
class SeedDetectionParameters:
    """Which boxes of a detector become objects."""

    enabled: bool = _is(
        False, 'Use boxes of a detector on ~/seed_detections as seeds of untracked objects. Needs vision_msgs.'
    )
    classes: tuple[str, ...] = _is((), 'Accepted classes, as in [cup, bottle]. Empty: all.', change=LIVE)
    min_score: float = _is(0.5, 'Minimum score of a detection.', low=0.0, high=1.0, change=LIVE)
    max_iou: float = _is(
        0.3,
        'A box with at least this IoU with the box of a tracked object belongs to that object.',
        low=0.01,
        high=1.0,
        change=LIVE,
    )
    reseed_within: float = _is(
        600.0,
        'A box may correct a lost object of its class that was last visible at most this long ago: at its last '
        'position, or with min_likeness. 0: it always starts a new object.',
        low=0.0,
        high=86400.0,
        unit='s',
        change=LIVE,
    )
    min_likeness: float = _is(
        0.7,
        'Minimum similarity for a box away from the last position to re-identify a lost object (reseed_within). 0: '
        'the class alone decides.',
        low=0.0,
        high=1.0,
        change=LIVE,
    )
    max_per_message: int = _is(
        4, 'Maximum number of boxes tried in a message, the likeliest first.', low=1, high=254, change=LIVE
    )
    period: float = _is(
        1.0,
        'Minimum time between messages whose boxes are tried; of those in between, the newest is used.',
        low=0.0,
        high=3600.0,
        unit='s',
        change=LIVE,
    )


@dataclass(frozen=True)
class Parameters:
    """Every parameter with its value."""

    weights: str = _is(
        'compact', 'Name of weights (compact, compact-permissive, xmem) or path of a .safetensors or .pth file.'
    )
    cameras: tuple[str, ...] = _is(
        (),
        'Names of cameras, as in [front, rear]. The process runs a node for each, in a namespace of that name, such '
        'as /front/xmem on /front/image. They share the weights and take turns. Empty: one node for one camera.',
        change=START,
    )
    device: str = _is('auto', 'Device of the network: auto (CUDA if available), cpu, cuda or cuda:N.')
    size: int = _is(
        -1,
        'Shorter side of the working size, 16 or more. -1: the size that suits the weights, 240 for compact, 480 '
        'for xmem. 0: images are not scaled.',
        low=-1,
        high=4096,
        unit='px',
    )
    precision: str = _is(
        'auto',
        'Arithmetic of the network. auto: float16 on CUDA, bfloat16 on a CPU with AMX, float32 elsewhere.',
        choices=('auto', 'float32', 'float16', 'bfloat16'),
    )
    engine: str = _is(
        'torch',
        'Runtime of the network. onnxruntime: ONNX Runtime with TensorRT, CUDA or the CPU, the first available. '
        'Models are exported for each size of image, at the time given by prepare, and kept.',
        choices=('torch', 'onnxruntime'),
    )
    prepare: str = _is(
        'known',
        'With engine: onnxruntime, the image size for which models are exported, built and loaded while the node is '
        'configured, for up to max_objects objects. known: the size that these weights ran on last, if any. Height '
        'x width, as 480x640: this size. none: nothing. TensorRT takes minutes the first time; the log names each '
        'engine.',
    )
    cuda_graphs: bool = _is(
        False,
        'With engine: torch on CUDA, record the kernels of the network for each size of image and number of objects '
        '(1, 2, 4, 8, 16), and replay them: less work for the CPU. Not tried on a GPU yet.',
    )
    max_objects: int = _is(16, 'Maximum number of objects at a time; their memory is allocated once.', low=1, high=254)
    memory_every: int = _is(
        5, 'Frames from one memory frame to the next.', low=1, high=1000, change=LIVE, unit='frames'
    )
    min_area: int = _is(16, 'An object with a smaller mask is OCCLUDED.', low=0, high=1_000_000, change=LIVE, unit='px')
    min_part_share: float = _is(
        0.05,
        'Boxes and centroids leave out connected parts of a mask below this share of its largest part; mask and '
        'area keep them. 0: nothing is left out.',
        low=0.0,
        high=1.0,
        change=LIVE,
    )
    min_score: float = _is(0.6, 'An object with a lower score is OCCLUDED.', low=0.0, high=1.0, change=LIVE)
    lost_after: float = _is(
        5.0, 'An object that was OCCLUDED this long is LOST.', low=0.0, high=86400.0, change=LIVE, unit='s'
    )
    report_unsure: bool = _is(
        False,
        'Also publish the mask and box of an OCCLUDED or LOST object: a guess. Off: it has none.',
        change=LIVE,
    )
    publish_per_object: bool = _is(True, 'Publish ~/object_<id>/mask and ~/object_<id>/box for each object.')
    queue: str = _is(
        'newest',
        'newest: track the newest image and drop those that arrive meanwhile. all: track every image, for replay; '
        'the subscription is reliable, and queue_overflow decides when queue_depth images wait.',
        choices=('newest', 'all'),
    )
    queue_overflow: str = _is(
        'wait',
        'With queue: all and queue_depth images waiting. wait: take no more from the middleware until there is '
        'room. drop: drop the oldest waiting image and count it.',
        choices=('wait', 'drop'),
    )
    queue_depth: int = _is(
        10, 'With queue: all, the maximum number of waiting images.', low=1, high=1000, unit='frames'
    )
    history: int = _is(
        300,
        'Maximum number of images kept for late seeds; history_seconds and history_mb limit them too.',
        low=1,
        high=10_000,
        unit='frames',
    )
    history_seconds: float = _is(
        3.0,
        'Maximum age of kept images, from their stamp to that of the newest. 0: no limit.',
        low=0.0,
        high=3600.0,
        unit='s',
    )
    history_mb: float = _is(
        200.0,
        'Maximum size of all kept images with their labels. 0: no limit.',
        low=0.0,
        high=100_000.0,
        unit='MB',
    )
    held: int = _is(
        4,
        'Maximum number of images kept longer by ~/hold, each for 10 minutes. 0: none.',
        low=0,
        high=100,
        unit='frames',
    )
    on_time_jump: str = _is(
        'keep',
        'When stamps jump back, as in a bag that loops: keep the objects, or reset and forget them.',
        choices=('keep', 'reset'),
        change=LIVE,
    )
    image_transport: str = _is(
        'raw',
        'Transport of the images. raw: sensor_msgs/Image on the topic image. compressed: '
        'sensor_msgs/CompressedImage, JPEG or PNG, on image/compressed below the topic to which image is remapped.',
        choices=('raw', 'compressed'),
    )
    jpeg_quality: int = _is(80, 'JPEG quality of ~/overlay/compressed.', low=1, high=100, change=LIVE)
    memory_folder: str = _is(
        '', 'Folder of ~/save_memory and ~/load_memory. Empty: xmem_ros in $ROS_HOME, or in ~/.ros.'
    )
    autostart: bool = _is(True, 'Configure and activate at the start, without a lifecycle manager.', change=START)
    no_image_warning_after: float = _is(
        5.0,
        'Warn when no image has arrived for this long. 0: never.',
        low=0.0,
        high=3600.0,
        change=LIVE,
        unit='s',
    )
    diagnostics_period: float = _is(1.0, 'Time between diagnostics.', low=0.1, high=3600.0, unit='s')
    memory: MemoryParameters = field(default_factory=MemoryParameters)
    depth: DepthParameters = field(default_factory=DepthParameters)
    seed_detections: SeedDetectionParameters = field(default_factory=SeedDetectionParameters)

    def prepare_size(self) -> tuple[int, int] | None:
        """H, W of the images to prepare for, where they are named; raises `ParameterError` for what says no size."""
        if self.prepare in (KNOWN, NONE):
            return None
        height, _, width = self.prepare.partition('x')
        if not all(re.fullmatch('0*[1-9][0-9]{0,4}', side) and len(side) < 10 for side in (height, width)):
            raise ParameterError(
                f'prepare is {quoted(self.prepare)}; allowed: {KNOWN}, {NONE}, or height x width of the images in px, '
                'as in 480x640'
            )
        return int(height), int(width)

    def memory_config(self) -> MemoryConfig:
        """As the tracker takes it; raises `ParameterError` for values that do not go together."""
        values = dataclasses.asdict(self.memory)
        del values['budget_mb']  # of the tracker: it also pays for what is not memory of this kind
        return MemoryConfig(**values)


def rules() -> dict[str, tuple[Value, Rule]]:
    """Name → default and rule; groups are dotted."""
    return dict(_walk(Parameters(), ''))


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, tuple[Value, Rule]]]:
    for item in dataclasses.fields(group):
        value = getattr(group, item.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f'{prefix}{item.name}.')
        else:
            yield f'{prefix}{item.name}', (value, item.metadata['rule'])


def changed(current: Parameters, values: Mapping[str, Any]) -> Parameters:
    """`current` with some values changed.

    Args:
        current: what there is.
        values: dotted name → new value. A whole number serves where a fraction is asked for.

    Raises:
        ParameterError: names every value that is unknown, of the wrong type or out of range, with what is allowed.
    """
    known = rules()
    faults = [fault for name, value in values.items() if (fault := _fault(name, value, known))]
    if faults:
        raise ParameterError('; '.join(faults))
    result = current
    for name, value in values.items():
        exact = _exact(value, known[name][0])
        group, _, leaf = name.rpartition('.')
        if group:
            result = _with(result, group, _with(getattr(result, group), leaf, exact))
        else:
            result = _with(result, leaf, exact)
    if 0 < result.size < LEAST_SIZE:
        raise ParameterError(
            f'size is {result.size}; allowed: {LEAST_SIZE} px or more, 0 (as the images come), '
            '-1 (what suits the weights)'
        )
    result.memory_config()
    _check_cameras(result.cameras)
    result.prepare_size()
    return result


def _check_cameras(names: tuple[str, ...]) -> None:
    for name in names:
        if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', name):
            raise ParameterError(
                f'cameras has {quoted(name)}; allowed are letters, digits and _, a letter first, as of a ROS namespace'
            )
        if names.count(name) > 1:
            raise ParameterError(f'cameras has {quoted(name)} more than once; give each camera a name of its own')


def _exact(value: Any, default: Value) -> Value:
    """As the table holds it. An empty text in a list stands for nothing: ROS cannot read a list without entries."""
    if isinstance(default, tuple):
        return tuple(text for text in value if text)
    return float(value) if isinstance(default, float) else value


def _with(group: Any, name: str, value: Any) -> Any:
    return dataclasses.replace(group, **{name: value})


def value_of(parameters: Parameters, name: str) -> Value:
    """The value of a dotted name."""
    found: Any = parameters
    for part in name.split('.'):
        found = getattr(found, part)
    return found


_KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text', tuple: 'a list of texts'}


def _fault(name: str, value: Any, known: Mapping[str, tuple[Value, Rule]]) -> str:
    """What is wrong with a value; empty if nothing."""
    if name not in known:
        return f'unknown parameter {quoted(name)}{_suggestion(name, known)}'
    default, rule = known[name]
    wanted = type(default)
    if wanted is tuple:
        fits = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    else:
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        fits = True
    if not fits:
        return f'{name} is {quoted(value)}; it must be {_KINDS[wanted]}'
    if rule.choices and value not in rule.choices:
        return f'{name} is {quoted(value)}; allowed: {rule.allowed()}. {rule.description}'
    if rule.low is not None and rule.high is not None and not rule.low <= value <= rule.high:
        return f'{name} is {quoted(value)}; allowed: {rule.allowed()}{f" {rule.unit}" if rule.unit else ""}'
    return ''


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:100], list(known), 1)
    return f' (did you mean {close[0]!r}?)' if close else ' (docs/parameters.md lists all)'
