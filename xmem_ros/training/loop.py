# SPDX-License-Identifier: MIT
"""The training loop: one YAML file describes a run, a checkpoint lets it go on where it was."""

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from xmem_ros.errors import ParameterError
from xmem_ros.network.checkpoint import find_weights, load_network
from xmem_ros.network.config import CONFIGS
from xmem_ros.network.model import XMemNetwork
from xmem_ros.training.clips import ClipConfig, Clips
from xmem_ros.training.footage import read_stills, read_videos
from xmem_ros.training.forward import track_clip
from xmem_ros.training.losses import bootstrapped_cross_entropy, dice_loss, hardest_share


@dataclass(frozen=True)
class TrainingConfig:
    """A run, as written in its YAML file."""

    network: str = 'compact'
    videos: tuple[str, ...] = ()  # folders with JPEGImages/ and Annotations/
    stills: tuple[str, ...] = ()  # folders with images/ and masks/
    leave_out: tuple[str, ...] = ()  # sequences held back
    shorter_side: int = 256  # px, footage is scaled down to this once
    clips: ClipConfig = field(default_factory=ClipConfig)
    iterations: int = 6000
    batch: int = 8
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    key_rate: float = 0.05  # learning rate of the key projection, as a share of the others'
    warmup: int = 200
    weight_decay: float = 0.01
    gradient_clip: float = 3.0
    bootstrap: tuple[int, int, float] = (500, 1500, 0.3)  # from, to (iterations), final share of pixels
    deep_update: float = 0.2
    ema: float = 0.998
    seed: int = 0
    save_every: int = 250  # iterations
    workers: int = 1
    start_from: str = ''  # weights that start this run: a name, a file, or another run's last.pt (its average)


def read_config(path: Path, **overrides: Any) -> TrainingConfig:
    """Read a run's YAML; raises `ParameterError` naming an unknown key."""
    data = yaml.safe_load(path.read_text()) or {}
    data.update({key: value for key, value in overrides.items() if value is not None})
    known = {f.name for f in dataclasses.fields(TrainingConfig)}
    if unknown := sorted(set(data) - known):
        raise ParameterError(f'{path}: unknown key {", ".join(unknown)}; known are {", ".join(sorted(known))}')
    clips = data.pop('clips', {})
    known = {f.name for f in dataclasses.fields(ClipConfig)}
    if unknown := sorted(set(clips) - known):
        raise ParameterError(f'{path}: unknown key clips.{", ".join(unknown)}; known are {", ".join(sorted(known))}')
    clips = {key: tuple(value) if isinstance(value, list) else value for key, value in clips.items()}
    data = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return TrainingConfig(clips=ClipConfig(**clips), **data)


class Trainer:
    """Trains one network; `run` goes on from the last checkpoint in `out` if there is one."""

    def __init__(self, config: TrainingConfig, root: Path, out: Path, device: str = 'cpu'):
        self.config, self.out, self.device = config, out, torch.device(device)
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        videos = [
            footage
            for folder in config.videos
            for footage in read_videos(root / folder, config.shorter_side, config.leave_out)
        ]
        stills = [f for folder in config.stills for f in read_stills(root / folder, config.shorter_side)]
        self.data = Clips(videos, stills, config.clips, config.seed, config.iterations * config.batch)
        self.network = XMemNetwork(CONFIGS[config.network]).to(self.device).to(memory_format=torch.channels_last)
        self.network.apply(_initialise)
        if config.start_from:
            self.network.load_state_dict(_starting_weights(config.start_from))
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=config.learning_rate)
        self.iteration = 0
        self.checkpoint = out / 'last.pt'
        if self.checkpoint.exists():
            self._load()

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Decay for weights only; a lower rate for the key projection.

        Adam moves each of a wide convolution's weights by the learning rate, so at full rate keys and shrinkage (a
        square) grow within tens of iterations until the affinity is one-hot and passes no gradient.
        """
        named = list(self.network.named_parameters())
        keys = [p for name, p in named if name.startswith('key_proj')]
        rest = [(name, p) for name, p in named if not name.startswith('key_proj')]
        decay = self.config.weight_decay
        return [
            {'params': [p for _, p in rest if p.ndim > 1], 'weight_decay': decay, 'rate': 1.0},
            {'params': [p for _, p in rest if p.ndim <= 1], 'weight_decay': 0.0, 'rate': 1.0},
            {'params': keys, 'weight_decay': decay, 'rate': self.config.key_rate},
        ]

    def learning_rate(self, iteration: int) -> float:
        """Linear warm-up, then a cosine to the final rate."""
        c = self.config
        if iteration < c.warmup:
            return c.learning_rate * (iteration + 1) / c.warmup
        progress = (iteration - c.warmup) / max(c.iterations - c.warmup, 1)
        return (
            c.final_learning_rate + (c.learning_rate - c.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
        )

    def run(self) -> None:
        """Train to the last iteration; a checkpoint every `save_every`, a line of losses every 10."""
        c = self.config
        rest = Subset(self.data, range(self.iteration * c.batch, len(self.data)))
        loader = DataLoader(rest, c.batch, num_workers=c.workers, persistent_workers=c.workers > 0, drop_last=True)
        self.network.train()
        started, recent = time.monotonic(), []
        with (
            (self.out / 'log.jsonl').open('a', encoding='utf-8') as log,
            tqdm(total=c.iterations, initial=self.iteration, unit='it', mininterval=5) as bar,
        ):
            for batch in loader:
                recent.append(self._step(*(part.to(self.device) for part in batch)))
                self.iteration += 1
                bar.update()
                if self.iteration % 10 == 0:
                    mean = {key: float(np.mean([r[key] for r in recent])) for key in recent[0]}
                    recent.clear()
                    log.write(
                        json.dumps({'iteration': self.iteration, 'seconds': time.monotonic() - started} | mean) + '\n'
                    )
                    log.flush()
                    bar.set_postfix({key: f'{value:.3f}' for key, value in mean.items()})
                if self.iteration % c.save_every == 0 or self.iteration == c.iterations:
                    self._save()

    def averaged_network(self) -> XMemNetwork:
        """The exponential moving average of the weights: what to use."""
        network = XMemNetwork(self.network.config)
        network.load_state_dict(self.average.module.state_dict())
        return network.eval()

    def _step(self, images: Tensor, labels: Tensor, valid: Tensor) -> dict[str, float]:
        c, labels = self.config, labels.long()
        for group in self.optimizer.param_groups:
            group['lr'] = self.learning_rate(self.iteration) * group['rate']
        slots = torch.arange(1, valid.shape[1] + 1, device=labels.device).view(1, -1, 1, 1)
        first = (labels[:, :1] == slots).float()
        draw = torch.Generator().manual_seed(c.seed * 1_000_003 + self.iteration)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = track_clip(self.network, images, first, valid, c.deep_update, draw)
        share = hardest_share(self.iteration, *c.bootstrap)
        frames = range(logits.shape[1])
        cross = torch.stack([bootstrapped_cross_entropy(logits[:, t], labels[:, t + 1], share) for t in frames]).mean()
        prob = torch.softmax(logits, 2)[:, :, 1:]
        dice = torch.stack([dice_loss(prob[:, t], labels[:, t + 1], valid) for t in frames]).mean()
        self.optimizer.zero_grad(set_to_none=True)
        (cross + dice).backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), c.gradient_clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.average.update_parameters(self.network)
        return {'cross_entropy': cross.item(), 'dice': dice.item(), 'gradient': norm.item()}

    def _save(self) -> None:
        state = {
            'iteration': self.iteration,
            'model': self.network.state_dict(),
            'ema': self.average.module.state_dict(),
            'averaged': self.average.n_averaged,
            'optimizer': self.optimizer.state_dict(),
        }
        partial = self.checkpoint.with_suffix('.part')
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state['model'])
        self.average.module.load_state_dict(state['ema'])
        self.average.n_averaged = state['averaged']
        self.optimizer.load_state_dict(state['optimizer'])
        self.iteration = state['iteration']


def _starting_weights(name: str) -> dict[str, Tensor]:
    """The averaged weights of a run's checkpoint, or the weights of a name or file."""
    path = Path(name)
    if path.suffix == '.pt' and path.is_file():
        saved = torch.load(path, map_location='cpu', weights_only=True)
        if 'ema' in saved:
            return saved['ema']
    return load_network(find_weights(name)).state_dict()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d) and module.bias is None:
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
