# SPDX-License-Identifier: MIT
"""Frame rate: the time that frames took, and the machine that was used."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


@dataclass
class Clock:
    """Total number of frames and time, s."""

    frames: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0

    def add(self, seconds: float, step_seconds: float) -> None:
        """Add a frame: its forward time, and the time of its whole step, s."""
        self.frames += 1
        self.seconds += seconds
        self.step_seconds += step_seconds

    def facts(self) -> dict[str, float]:
        """Return the totals as a dictionary."""
        return {'frames': self.frames, 'seconds': self.seconds, 'step_seconds': self.step_seconds}


def rate(*facts: Mapping[str, Any], of: str = 'seconds') -> float | None:
    """Return frames/s over the totals of several clocks; None without times."""
    frames = sum(item.get('frames', 0) for item in facts if item.get(of))
    seconds = sum(item.get(of, 0.0) for item in facts)
    return frames / seconds if seconds else None


def machine(device: torch.device, precision: str) -> dict[str, Any]:
    """Describe the device, for the results."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else f'{_processor()}'
    threads = {} if device.type == 'cuda' else {'threads': torch.get_num_threads()}
    return {'device': device.type, 'device_name': name, 'precision': precision, 'torch': torch.__version__, **threads}


def _processor() -> str:
    try:
        with open('/proc/cpuinfo') as lines:  # noqa: PTH123
            for line in lines:
                if line.startswith('model name'):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
