# SPDX-License-Identifier: MIT
"""Table of the node's parameters: declaration, validation, live updates and documentation.

`python -m xmem_ros.parameters.docs --write` writes config/track.yaml and docs/parameters.md.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import ParameterError, listed, quoted
from xmem_ros.intensity import parse_range
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.parameters.groups import DepthParameters, MemoryParameters, SeedDetectionParameters
from xmem_ros.parameters.rule import LIVE, START, Rule, Value, parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MIN_SIZE = 16  # px, the network's stride
KNOWN, NONE = 'known', 'none'  # values of `prepare`
STRICT = 'strict_parameters'


@dataclass(frozen=True)
class Parameters:
    """Values of all parameters."""

    weights: str = parameter(
        'compact', 'Name of weights (compact, compact-permissive, xmem) or path of a .safetensors or .pth file.'
    )
    device: str = parameter('auto', 'Device of the network: auto (CUDA if available), cpu, cuda or cuda:N.')
    size: int = parameter(
        -1,
        'Shorter side of the working size, 16 or more. -1: the size that suits the weights, 240 for compact, 480 '
        'for xmem. 0: images are not scaled.',
        low=-1,
        high=4096,
        unit='px',
    )
    intensity_range: str = parameter(
        'auto',
        'Values that become black and white in images of more than 8 bits. auto: the 0.5 and 99.5 percentiles of the '
        'first image, or of the first one that is seeded, kept until a reset or a change of encoding. full: the range '
        'of the type. LOW,HIGH, as in 7000,8500: these.',
    )
    seeder: str = parameter(
        'bundled',
        'What makes the masks of boxes and points, on the CPU. bundled: the network of this package. grabcut: '
        'colours alone. A folder: the ONNX models of a SAM, encoder and decoder.',
    )
    precision: str = parameter(
        'auto',
        'Arithmetic of the network. auto: float16 on CUDA, bfloat16 on a CPU with AMX, float32 elsewhere.',
        choices=('auto', 'float32', 'float16', 'bfloat16'),
    )
    engine: str = parameter(
        'torch',
        'Runtime of the network. onnxruntime: ONNX Runtime with TensorRT, CUDA or the CPU, the first available. '
        'Models are exported for each size of image, at the time given by prepare, and kept.',
        choices=('torch', 'onnxruntime'),
    )
    prepare: str = parameter(
        'known',
        'With engine: onnxruntime, the image size for which models are exported, built and loaded while the node is '
        'configured, for up to max_objects objects. known: the size that these weights ran on last, if any. Height '
        'x width, as 480x640: this size. none: nothing. TensorRT takes minutes the first time; the log names each '
        'engine.',
    )
    cuda_graphs: bool = parameter(
        False,
        'With engine: torch on CUDA, record the kernels of the network for each size of image and number of objects '
        '(1, 2, 4, 8, 16), and replay them: less work for the CPU. Not tried on a GPU yet.',
    )
    max_objects: int = parameter(
        16, 'Maximum number of objects at a time; their memory is allocated once.', low=1, high=254
    )
    memory_every: int = parameter(
        5, 'Frames from one memory frame to the next.', low=1, high=1000, change=LIVE, unit='frames'
    )
    min_area: int = parameter(
        16, 'An object with a smaller mask is OCCLUDED.', low=0, high=1_000_000, change=LIVE, unit='px'
    )
    min_part_share: float = parameter(
        0.05,
        'Boxes and centroids leave out connected parts of a mask below this share of its largest part; mask and '
        'area keep them. 0: nothing is left out.',
        low=0.0,
        high=1.0,
        change=LIVE,
    )
    min_score: float = parameter(0.6, 'An object with a lower score is OCCLUDED.', low=0.0, high=1.0, change=LIVE)
    lost_after: float = parameter(
        5.0, 'An object that was OCCLUDED this long is LOST.', low=0.0, high=86400.0, change=LIVE, unit='s'
    )
    report_unsure: bool = parameter(
        False,
        'Also publish the mask and box of an OCCLUDED or LOST object: a guess. Off: it has none.',
        change=LIVE,
    )
    publish_per_object: bool = parameter(
        True, 'Publish ~/object_<label>/mask and ~/object_<label>/box, for labels from 1 to max_objects.'
    )
    queue: str = parameter(
        'newest',
        'newest: track the newest image and drop those that arrive meanwhile. all: track every image, for replay; '
        'the subscription is reliable, and queue_overflow decides when queue_depth images wait.',
        choices=('newest', 'all'),
    )
    queue_overflow: str = parameter(
        'wait',
        'With queue: all and queue_depth images waiting. wait: take no more from the middleware until there is '
        'room. drop: drop the oldest waiting image and count it.',
        choices=('wait', 'drop'),
    )
    queue_depth: int = parameter(
        10, 'With queue: all, the maximum number of waiting images.', low=1, high=1000, unit='frames'
    )
    history: int = parameter(
        300,
        'Maximum number of images kept for late seeds; history_seconds and history_mb limit them too.',
        low=1,
        high=10_000,
        unit='frames',
    )
    history_seconds: float = parameter(
        3.0,
        'Maximum age of kept images, from their stamp to that of the newest. 0: no limit.',
        low=0.0,
        high=3600.0,
        unit='s',
    )
    history_mb: float = parameter(
        200.0,
        'Maximum size of all kept images with their labels. 0: no limit.',
        low=0.0,
        high=100_000.0,
        unit='MB',
    )
    held: int = parameter(
        4,
        'Maximum number of images kept longer by ~/hold, each for 10 minutes. 0: none.',
        low=0,
        high=100,
        unit='frames',
    )
    on_time_jump: str = parameter(
        'keep',
        'When stamps jump back by more than time_jump_threshold, as in a bag that loops: keep the objects, or reset '
        'and forget them.',
        choices=('keep', 'reset'),
        change=LIVE,
    )
    time_jump_threshold: float = parameter(
        0.5,
        'An image that is older than the newest by no more than this is late: it is dropped and counted.',
        low=0.0,
        high=3600.0,
        change=LIVE,
        unit='s',
    )
    image_transport: str = parameter(
        'raw',
        'Transport of the images. raw: sensor_msgs/Image on the topic image. compressed: '
        'sensor_msgs/CompressedImage, JPEG or PNG, on image/compressed below the topic to which image is remapped.',
        choices=('raw', 'compressed'),
    )
    jpeg_quality: int = parameter(80, 'JPEG quality of ~/overlay/compressed.', low=1, high=100, change=LIVE)
    memory_folder: str = parameter(
        '', 'Folder of ~/save_memory and ~/load_memory. Empty: xmem_ros in $ROS_HOME, or in ~/.ros.'
    )
    load_on_start: str = parameter(
        '',
        'Name of a memory file in memory_folder that is loaded when the node is configured for the first time, so that '
        'a restarted node continues with its objects. Empty: none.',
    )
    save_period: float = parameter(
        0.0,
        'Write the file of load_on_start this often while there are objects, when objects are added, renamed or '
        'removed, and when tracking stops. 0: never.',
        low=0.0,
        high=86400.0,
        unit='s',
    )
    autostart: bool = parameter(True, 'Configure and activate at the start, without a lifecycle manager.', change=START)
    strict_parameters: bool = parameter(
        False,
        'Refuse to start with unknown parameters. Off: they are ignored with a warning, because a file for several '
        'nodes has those of the others.',
        change=START,
    )
    no_image_warning_after: float = parameter(
        5.0,
        'Warn when no image has arrived for this long. 0: never.',
        low=0.0,
        high=3600.0,
        change=LIVE,
        unit='s',
    )
    min_rate: float = parameter(
        2.0,
        'Warn when images are dropped and fewer than this are tracked per second. 0: never.',
        low=0.0,
        high=1000.0,
        change=LIVE,
        unit='Hz',
    )
    diagnostics_period: float = parameter(1.0, 'Time between diagnostics.', low=0.1, high=3600.0, unit='s')
    memory: MemoryParameters = field(default_factory=MemoryParameters)
    depth: DepthParameters = field(default_factory=DepthParameters)
    seed_detections: SeedDetectionParameters = field(default_factory=SeedDetectionParameters)

    def prepare_size(self) -> tuple[int, int] | None:
        """Return H, W of the images named by `prepare`; None for known and none.

        Raises:
            ParameterError: neither a size nor one of these words.
        """
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
        """Convert to the tracker's type; raises `ParameterError` for contradictory values."""
        values = dataclasses.asdict(self.memory)
        del values['budget_mb']  # belongs to the tracker: it covers more than these stores
        return MemoryConfig(**values)


def rules() -> dict[str, tuple[Value, Rule]]:
    """Return dotted name → default and rule."""
    return dict(_walk(Parameters(), ''))


def without_unknown(values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Leave out the values that the table lacks, unless `strict_parameters` is among them and true.

    Returns:
        The values for `changed`, and a warning that names the others; empty without them.
    """
    known = rules()
    unknown = [] if values.get(STRICT) is True else [name for name in values if name not in known]
    if not unknown:
        return dict(values), ''
    faults = sorted((_unknown(name, known) for name in unknown), key=lambda fault: 'did you mean' not in fault)
    kept = {name: value for name, value in values.items() if name in known}
    return kept, f'ignored, because {STRICT} is false: {listed(faults)}'


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, tuple[Value, Rule]]]:
    for item in dataclasses.fields(group):
        value = getattr(group, item.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f'{prefix}{item.name}.')
        else:
            yield f'{prefix}{item.name}', (value, item.metadata['rule'])


def changed(current: Parameters, values: Mapping[str, Any]) -> Parameters:
    """Return `current` with some values changed.

    Args:
        current: the parameters so far.
        values: dotted name → new value. A whole number is accepted for a fraction.

    Raises:
        ParameterError: names every unknown parameter and every value of the wrong type or out of
            range, with the allowed values.
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
    if 0 < result.size < MIN_SIZE:
        raise ParameterError(
            f'size is {result.size}; allowed: {MIN_SIZE} px or more, 0 (unscaled images), '
            '-1 (the size that suits the weights)'
        )
    result.memory_config()
    result.prepare_size()
    parse_range(result.intensity_range)
    return result


def _exact(value: Any, default: Value) -> Value:
    """Convert a value to the type of the table.

    Empty strings in a list are left out: ROS cannot read an empty list, so `['']` stands for it.
    """
    if isinstance(default, tuple):
        return tuple(text for text in value if text)
    return float(value) if isinstance(default, float) else value


def _with(group: Any, name: str, value: Any) -> Any:
    return dataclasses.replace(group, **{name: value})


def value_of(parameters: Parameters, name: str) -> Value:
    """Return the value of a dotted name."""
    found: Any = parameters
    for part in name.split('.'):
        found = getattr(found, part)
    return found


_KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a string', tuple: 'a list of strings'}


def _fault(name: str, value: Any, known: Mapping[str, tuple[Value, Rule]]) -> str:
    """Describe what is wrong with a value; empty if it is allowed."""
    if name not in known:
        return _unknown(name, known)
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


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:100], list(known), 1)
    suggestion = f' (did you mean {close[0]!r}?)' if close else ''
    return f'unknown parameter {quoted(name)}{suggestion}'
