# SPDX-License-Identifier: MIT
"""Adapter of the authors' implementation, from an unmodified checkout."""

import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmem_ros.memory.store import Positions
from xmem_ros.network.model import IMAGE_MEAN, IMAGE_STD, XMemNetwork

PUBLISHED = {
    'mem_every': 5,
    'deep_update_every': -1,
    'enable_long_term': True,
    'enable_long_term_count_usage': True,
    'max_mid_term_frames': 10,
    'min_mid_term_frames': 5,
    'max_long_term_elements': 10_000,
    'num_prototypes': 128,
    'top_k': 30,
    'hidden_dim': 64,
    'key_dim': 64,
    'value_dim': 512,
}


def _without_pretraining(build: Any, pretrained: bool = True, extra_dim: int = 0) -> Any:  # noqa: ARG001
    return build(False, extra_dim)


class Reference:
    """The authors' implementation with given weights; no ImageNet weights are downloaded.

    Arguments:
        checkout: of hkchengrex/XMem.
        network: ours, with the weights to use, before anything was folded.
        amp: whether to run under autocast in float16, as its evaluation does by default on CUDA.
    """

    def __init__(self, checkout: Path, network: XMemNetwork, objects: int, device: str, *, amp: bool = False):
        if not (checkout / 'inference' / 'inference_core.py').is_file():
            raise SystemExit(f'{checkout}: not a checkout of hkchengrex/XMem (no inference/inference_core.py)')
        if str(checkout) not in sys.path:
            sys.path.insert(0, str(checkout))
        from model import resnet  # type: ignore[import-not-found]

        for name in ('resnet18', 'resnet50'):
            build = getattr(resnet, name)
            if not isinstance(build, partial):
                setattr(resnet, name, partial(_without_pretraining, build))
        from inference.inference_core import InferenceCore  # type: ignore[import-not-found]
        from model.network import XMem  # type: ignore[import-not-found]

        model = XMem(dict(PUBLISHED)).to(device).eval()
        model.load_state_dict(network.state_dict())
        self.core, self.device, self.objects, self.amp = InferenceCore(model, dict(PUBLISHED)), device, objects, amp
        self.core.set_all_labels(list(range(1, objects + 1)))

    @torch.inference_mode()
    def step(self, frame: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        """Track a frame as in its evaluation; returns probabilities (1+O)×H×W.

        labels: H×W with objects 1…O, to seed this frame.
        """
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
        image = (torch.from_numpy(frame).to(self.device).permute(2, 0, 1).float() / 255 - mean) / std
        with torch.autocast('cuda', dtype=torch.float16) if self.amp else contextlib.nullcontext():
            if labels is None:
                prob = self.core.step(image)
            else:
                masks = torch.stack([torch.from_numpy(labels == v) for v in range(1, self.objects + 1)]).float()
                prob = self.core.step(image, masks.to(self.device), list(range(1, self.objects + 1)))
        prob.argmax(0).to(torch.uint8).cpu().numpy()  # its evaluation ends with it
        return prob

    @property
    def elements(self) -> dict[str, int]:
        """Positions in working and in long-term memory."""
        memory = self.core.memory
        return {'working': memory.work_mem.size, 'long_term': memory.long_mem.size}

    @torch.inference_mode()
    def fill(self, working: list[Positions], long_term: Positions | None) -> None:
        """Add the same frames and prototypes to working and long-term memory as for ours."""
        memory = self.core.memory

        def plane(rows: Tensor) -> Tensor:
            return rows.T[None].contiguous()  # n×C → 1×C×n

        for frame in working:
            values = frame.values.transpose(1, 2).to(memory.work_mem.v[0].dtype).contiguous()
            names = list(range(1, self.objects + 1))
            memory.work_mem.add(plane(frame.key), values, plane(frame.shrinkage), plane(frame.selection), names)
        if long_term is not None:
            values = [long_term.values.transpose(1, 2).to(memory.work_mem.v[0].dtype).contiguous()]
            memory.long_mem.add(plane(long_term.key), values, plane(long_term.shrinkage), None, None)
            memory.long_mem.use_count[:] = long_term.use
            memory.long_mem.life_count[:] = long_term.life
        if working:
            count = sum(len(frame) for frame in working)
            memory.work_mem.use_count[..., -count:] = torch.cat([frame.use for frame in working])
            memory.work_mem.life_count[..., -count:] = torch.cat([frame.life for frame in working])
