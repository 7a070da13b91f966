# SPDX-License-Identifier: MIT
"""Joules, where the machine tells: NVML on NVIDIA's GPUs, RAPL on x86; nothing elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RAPL = Path('/sys/class/powercap')


class EnergyMeter:
    """`joules()` since the machine started, or None where nothing tells."""

    def __init__(self, device: str):
        self._handle: Any = None
        self._files: list[Path] = []
        if device.startswith('cuda'):
            try:
                import pynvml

                pynvml.nvmlInit()
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(':')[2] or 0))
                self._nvml = pynvml
                pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            except Exception:  # no NVML, no such counter: there is nothing to tell
                self._handle = None
        else:
            for package in sorted(RAPL.glob('intel-rapl:?')):
                file = package / 'energy_uj'
                try:
                    file.read_text()
                except OSError:  # only root may
                    continue
                self._files.append(file)

    @property
    def source(self) -> str:
        """Who tells."""
        return 'NVML' if self._handle is not None else 'RAPL' if self._files else 'none'

    def joules(self) -> float | None:
        """Of the GPU, or of the processors; counters of RAPL may wrap, differences below 0 mean that."""
        if self._handle is not None:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        if self._files:
            return sum(int(file.read_text()) for file in self._files) / 1e6
        return None
