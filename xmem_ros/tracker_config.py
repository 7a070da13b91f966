# SPDX-License-Identifier: MIT
"""Settings of a tracker, and the device it runs on."""

from dataclasses import dataclass, field, replace

import torch

from xmem_ros.errors import DeviceError, ParameterError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.config import NetworkConfig
from xmem_ros.network.model import STRIDE

PRECISIONS = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
ENGINES = ('torch', 'onnxruntime')
AUTO_SIZE = -1


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of a tracker."""

    size: int = AUTO_SIZE  # px the frame's shorter side is scaled to; 0: as it comes; −1: what suits the weights
    precision: str = 'auto'  # float32, float16, bfloat16; auto: what is fast there, see `pick_precision`
    engine: str = 'torch'  # what runs the network: torch or onnxruntime
    cuda_graphs: bool = False  # record what the network launches, see `GraphedNetwork`; no effect on a CPU
    max_objects: int = 16
    memory_every: int = 5  # frames between memory frames
    min_area: int = 16  # px; a smaller mask counts as occluded
    min_part_share: float = 0.05  # parts smaller than this share of a mask's largest do not count for box and centroid
    min_score: float = 0.6  # an object with a lower score counts as occluded
    report_unsure: bool = True  # whether what is OCCLUDED or LOST has pixels and a box, where something was guessed
    lost_after: float = 5.0  # s of occlusion after which an object is LOST
    memory_budget_mb: float = 0.0  # MB that all stores may take; long-term memory is sized to it. 0: no limit
    memory: MemoryConfig = field(default_factory=MemoryConfig)

    def __post_init__(self) -> None:
        if self.size not in (AUTO_SIZE, 0) and self.size < STRIDE:
            raise ParameterError(
                f'size is {self.size}; it must be at least {STRIDE} px, 0 (as the frames come) or {AUTO_SIZE} (what '
                'suits the weights)'
            )
        if self.precision != 'auto' and self.precision not in PRECISIONS:
            raise ParameterError(f'precision is {self.precision!r}; it must be auto, {", ".join(PRECISIONS)}')
        if self.engine not in ENGINES:
            raise ParameterError(f'engine is {self.engine!r}; it must be {" or ".join(ENGINES)}')
        if self.engine == 'onnxruntime' and self.precision == 'bfloat16':
            raise ParameterError('precision is bfloat16, which engine onnxruntime does not run: use float16 or float32')
        if self.memory_every < 1:
            raise ParameterError(f'memory_every is {self.memory_every}; it must be at least 1')
        if not 0 <= self.min_part_share <= 1:
            raise ParameterError(f'min_part_share is {self.min_part_share}; it must be 0…1')


def with_size(config: TrackerConfig, network: NetworkConfig) -> TrackerConfig:
    return replace(config, size=network.shorter_side) if config.size == AUTO_SIZE else config


def pick_precision(precision: str, device: torch.device, engine: str = 'torch') -> torch.dtype:
    """`auto` is float16 on CUDA, bfloat16 on a CPU that multiplies matrices of it (AMX), float32 elsewhere.

    Without AMX, bfloat16 is slower than float32 on a CPU. ONNX Runtime has no bfloat16 there.
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
    """As in `PRECISIONS`."""
    return next(name for name, kind in PRECISIONS.items() if kind == dtype)


def pick_device(device: str | torch.device) -> torch.device:
    """`auto` is CUDA where it is; raises `DeviceError` for a device that is asked for and absent."""
    if str(device) == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f'unknown device {device!r}; use auto, cpu, cuda or cuda:N') from error
    if chosen.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            remedy = 'install a CUDA build of torch for this machine'
            if torch.version.cuda:
                remedy = 'see with nvidia-smi, or xmem-ros doctor, whether GPU and driver are there'
            raise DeviceError(
                f'device {str(device)!r} was asked for, but this PyTorch ({torch.__version__}) sees {count} CUDA '
                f'device(s); {remedy}, or use device cpu or auto'
            )
    return chosen
