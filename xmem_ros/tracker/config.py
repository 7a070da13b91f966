# SPDX-License-Identifier: MIT
"""Settings, device and precision of a tracker."""

import logging
from dataclasses import dataclass, field, replace

import torch

from xmem_ros.checks import LARGEST_SIDE, check_choice, check_flag, check_number, check_whole, is_whole
from xmem_ros.errors import DeviceError, ParameterError, quoted
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.config import NetworkConfig
from xmem_ros.network.model import STRIDE
from xmem_ros.objects import MOST_OBJECTS

PRECISIONS = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
ENGINES = ('torch', 'onnxruntime')
AUTO_SIZE = -1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of a tracker."""

    size: int = AUTO_SIZE  # px, shorter side of scaled frames; 0: unscaled; −1: by the weights
    precision: str = 'auto'  # float32, float16, bfloat16 or auto; see `pick_precision`
    engine: str = 'torch'  # torch or onnxruntime
    cuda_graphs: bool = False  # replay the network's kernels; see `GraphedNetwork`; CUDA only
    max_objects: int = 16
    memory_every: int = 5  # frames between memory frames
    min_area: int = 16  # px; an object with a smaller mask is OCCLUDED
    # Box and centroid ignore parts below this share of the mask's largest part.
    min_part_share: float = 0.05
    min_score: float = 0.6  # an object with a lower score is OCCLUDED
    report_unsure: bool = True  # whether OCCLUDED and LOST objects keep guessed pixels and a box
    lost_after: float = 5.0  # s of occlusion after which an object is LOST
    memory_budget_mb: float = 0.0  # MB for all stores, by a smaller long-term memory; 0: no limit
    memory: MemoryConfig = field(default_factory=MemoryConfig)

    def __post_init__(self) -> None:
        if not is_whole(self.size) or (self.size not in (AUTO_SIZE, 0) and not STRIDE <= self.size <= LARGEST_SIDE):
            raise ParameterError(
                f'size is {quoted(self.size)}; it must be a whole number: at least {STRIDE} px, 0 (not scaled) '
                f'or {AUTO_SIZE} (the size that suits the weights)'
            )
        check_choice('precision', self.precision, ('auto', *PRECISIONS))
        check_choice('engine', self.engine, ENGINES)
        if self.engine == 'onnxruntime' and self.precision == 'bfloat16':
            raise ParameterError(
                'precision is bfloat16, which engine onnxruntime does not support: use float16 or float32'
            )
        check_whole('max_objects', self.max_objects, 1, MOST_OBJECTS)
        check_whole('memory_every', self.memory_every, 1)
        check_whole('min_area', self.min_area, 0)
        check_number('min_part_share', self.min_part_share, 0, 1)
        check_number('min_score', self.min_score, 0, 1)
        check_number('lost_after', self.lost_after, 0)
        check_number('memory_budget_mb', self.memory_budget_mb, 0)
        check_flag('cuda_graphs', self.cuda_graphs)
        check_flag('report_unsure', self.report_unsure)
        if not isinstance(self.memory, MemoryConfig):
            raise ParameterError(f'memory is {quoted(self.memory)}; it must be a MemoryConfig')


def given_config(config: TrackerConfig | None) -> TrackerConfig:
    """Return `config`, or the defaults for None; raises `ParameterError` for another type."""
    if config is not None and not isinstance(config, TrackerConfig):
        raise ParameterError(f'config is {quoted(config)}; it must be a TrackerConfig, or None for the defaults')
    return config or TrackerConfig()


def with_size(config: TrackerConfig, network: NetworkConfig) -> TrackerConfig:
    """Replace the size AUTO_SIZE by the shorter side that suits the network."""
    return replace(config, size=network.shorter_side) if config.size == AUTO_SIZE else config


def with_policy(config: TrackerConfig, network: NetworkConfig) -> TrackerConfig:
    """Select the published memory policy for weights without likeness thresholds.

    The guard cannot work without them.
    """
    if network.likeness is not None or config.memory == config.memory.published():
        return config
    log.warning(
        'these weights hold no likeness thresholds, so memory follows the published policy; '
        '`xmem-ros weights calibrate` adds them'
    )
    return replace(config, memory=config.memory.published())


def pick_precision(precision: str, device: torch.device, engine: str = 'torch') -> torch.dtype:
    """Return the type for a precision by name.

    `auto` is float16 on CUDA, bfloat16 on a CPU with AMX, float32 elsewhere. Without AMX, bfloat16
    is slower than float32 on a CPU. ONNX Runtime has no bfloat16 on a CPU.
    """
    if precision != 'auto':
        return PRECISIONS[precision]
    if device.type == 'cuda':
        return torch.float16
    if engine == 'onnxruntime':
        return torch.float32
    capabilities: dict[str, object] = getattr(torch.cpu, 'get_capabilities', dict)()  # torch ≥ 2.10
    return torch.bfloat16 if device.type == 'cpu' and capabilities.get('amx_bf16') else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """Return the name of a type in `PRECISIONS`."""
    return next(name for name, kind in PRECISIONS.items() if kind == dtype)


def pick_device(device: str | torch.device) -> torch.device:
    """Return a device by name; `auto` is CUDA if present, else the CPU.

    Raises `DeviceError` for an unknown or absent device.
    """
    if str(device) == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(f'unknown device {quoted(device)}; use auto, cpu, cuda or cuda:N') from error
    if chosen.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            remedy = 'install a CUDA build of torch for this machine'
            if torch.version.cuda:
                remedy = 'check GPU and driver with nvidia-smi or xmem-ros doctor'
            raise DeviceError(
                f'device {str(device)!r} is not present: this PyTorch ({torch.__version__}) finds {count} CUDA '
                f'device(s); {remedy}, or use device cpu or auto'
            )
    return chosen
