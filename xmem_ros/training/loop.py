# SPDX-License-Identifier: MIT
"""Training loop of a run, which a YAML file describes and which resumes from its checkpoint.

There is one process, or one per GPU under torchrun; a step uses the same clips either way.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset

from xmem_ros import atomic
from xmem_ros.checks import check_number, check_whole
from xmem_ros.errors import OutputError, ParameterError, Setting, WeightsError, XMemError, naming, summary_of
from xmem_ros.network.config import CONFIGS, config_from_state_dict
from xmem_ros.network.model import XMemNetwork
from xmem_ros.outside_text import say
from xmem_ros.progress import Bar
from xmem_ros.training.clips import Clips
from xmem_ros.training.config import TrainingConfig
from xmem_ros.training.curves import Curves
from xmem_ros.training.data import read_data
from xmem_ros.training.losses import ClipLoss
from xmem_ros.training.validation import mean, validate
from xmem_ros.weights import torch_files
from xmem_ros.weights.checkpoint import load_network
from xmem_ros.weights.files import find_weights

# settings that may differ when a run is resumed
MAY_CHANGE = {'start_from', 'cache_mb', 'verify', 'workers', 'save_every', 'pictures_every', 'validate_every'}
MOST_SKIPPED = 50  # consecutive steps
PRECISIONS = {'bfloat16': torch.bfloat16, 'float16': torch.float16, 'float32': torch.float32}


class TrainingError(XMemError, RuntimeError):
    """Training cannot continue."""


class Trainer:
    """Trainer of one network; it resumes from the last checkpoint in `out`, if any.

    Files in `out`:
        last.pt: everything needed to resume.
        best.pt: the averaged weights with the best score on held-back footage.
        log.jsonl: a line for each iteration.
        validation.jsonl: a line for each validation.
        tensorboard: curves and pictures.
    """

    def __init__(self, config: TrainingConfig, root: Path, out: Path, device: str = 'cpu'):
        self.config, self.out = config, out
        self.device = _device_of(device)
        self.rank, self.world = _join_processes(self.device)
        if config.batch % self.world:
            raise ParameterError(f'batch {config.batch} cannot be shared equally by {self.world} processes')
        self.checkpoint = out / 'last.pt'
        saved = self._saved_run()
        torch.manual_seed(config.seed)
        start = _starting_weights(config.start_from) if config.start_from and saved is None else None
        known = start if saved is None else saved['model']
        shape = CONFIGS[config.network] if known is None else config_from_state_dict(known)
        self.network = XMemNetwork(shape)
        self.network.apply(_initialise)
        if start is not None:
            self.network.load_state_dict(start)
        data = read_data(config, root)
        self.held = data.held
        self._check_out()
        self.data = Clips(data.videos, data.stills, config.clips, config.seed, config.iterations * config.batch)
        if self.world > 1 and self.device.type == 'cuda' and self.network.config.train_norm:
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.network = self.network.to(self.device).to(memory_format=torch.channels_last)
        self._freeze()
        self.loss: nn.Module = ClipLoss(self.network, config)
        if self.world > 1:
            # the deep update, with its parameters, is left out in some steps
            self.loss = DistributedDataParallel(self.loss, find_unused_parameters=True)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=config.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == 'float16')
        self.iteration = 0
        self.best = -1.0
        self.skipped = 0  # consecutive steps without a finite gradient
        if saved is not None:
            self._load(saved)

    def _check_out(self) -> None:
        """Create the output folder.

        Raises `ParameterError` instead of overwriting a file that no training run wrote.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for name in ('last.pt', 'best.pt'):
                atomic.check_target(self.out / name)
        except OSError as error:
            text = f'{self.out}: cannot be written ({error.strerror}); choose another folder'
            raise naming(Setting.DESTINATION, OutputError(text)) from error
        best = self.out / 'best.pt'
        if best.exists() and not self.checkpoint.exists():  # its run was killed before the first checkpoint
            found = _read(best, 'move it away, or choose another folder')
            if not isinstance(found, dict) or set(found) != {'iteration', 'ema'}:
                text = f'{best}: was not written by a training run; move it away, or choose another folder'
                raise naming(Setting.DESTINATION, ParameterError(text))

    def _saved_run(self) -> dict[str, Any] | None:
        """Read `last.pt`, if it exists; raises `ParameterError` if its run has other settings."""
        saved = _read(self.checkpoint, 'remove it to start over') if self.checkpoint.exists() else None
        at = -1 if saved is None else saved.get('iteration', -1)
        if self.world > 1:
            everyone: list[Any] = [None] * self.world
            dist.all_gather_object(everyone, at)
            if len(set(everyone)) > 1:
                text = f'{self.checkpoint}: the processes see different files; the folder must be one that all share'
                raise naming(Setting.DESTINATION, ParameterError(text))
        if saved is None:
            return None
        model = saved.get('model')
        is_model = isinstance(model, dict) and all(isinstance(tensor, Tensor) for tensor in model.values())
        if not isinstance(saved.get('config'), dict) or not is_model:
            text = f'{self.checkpoint}: not a checkpoint of this version; choose another folder'
            raise naming(Setting.DESTINATION, ParameterError(text))
        earlier, now = saved['config'], json.loads(json.dumps(dataclasses.asdict(self.config)))
        changed = [key for key in now if key not in MAY_CHANGE and earlier.get(key) != now[key]]
        if changed:
            text = (
                f'{self.checkpoint}: belongs to a run with other settings (different: {", ".join(changed)}); '
                'choose another folder, or remove this one to start over'
            )
            raise naming(Setting.DESTINATION, ParameterError(text))
        return saved

    def _freeze(self) -> None:
        """Freeze the parts that `frozen` names."""
        unused = set(self.config.frozen)
        for name, module in self.network.named_modules():
            for prefix in self.config.frozen:
                if name.startswith(prefix):
                    unused.discard(prefix)
                    module.requires_grad_(False).eval()
        if unused:
            raise ParameterError(f'frozen: the network has no part {", ".join(sorted(unused))}')

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Group parameters: weight decay for weights only, a lower rate for the key projection.

        Adam moves each weight of a wide convolution by the learning rate. At the full rate, keys
        and shrinkage (a square) grow within tens of iterations until the affinity is one-hot and
        passes no gradient.
        """
        named = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        decay = self.config.weight_decay

        def group(name: str) -> str:
            if name.startswith('key_proj'):
                return 'keys'
            return 'trunk' if name.startswith('key_encoder.') and '.laterals.' not in name else 'rest'

        def of(*groups: str) -> list[tuple[str, nn.Parameter]]:
            return [(name, p) for name, p in named if group(name) in groups]

        def both(parameters: list[tuple[str, nn.Parameter]], rate: float) -> list[dict[str, Any]]:
            return [
                {'params': [p for _, p in parameters if p.ndim > 1], 'weight_decay': decay, 'rate': rate},
                {'params': [p for _, p in parameters if p.ndim <= 1], 'weight_decay': 0.0, 'rate': rate},
            ]

        keys = {'params': [p for _, p in of('keys')], 'weight_decay': decay, 'rate': self.config.key_rate}
        if self.config.trunk_rate == 1:
            return [*both(of('rest', 'trunk'), 1.0), keys]
        return [*both(of('rest'), 1.0), keys, *both(of('trunk'), self.config.trunk_rate)]

    def learning_rate(self, iteration: int) -> float:
        """Return the learning rate: linear warm-up, then a cosine, or steps to a tenth each."""
        c = self.config
        if iteration < c.warmup:
            return c.learning_rate * (iteration + 1) / c.warmup
        if c.schedule == 'steps':
            return c.learning_rate * 0.1 ** sum(iteration >= step for step in c.steps)
        progress = (iteration - c.warmup) / max(c.iterations - c.warmup, 1)
        return (
            c.final_learning_rate + (c.learning_rate - c.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
        )

    def run(self) -> None:
        """Train to the last iteration; write checkpoints, validations and log lines."""
        c, share = self.config, self.config.batch // self.world
        begin = self.iteration * c.batch + self.rank * share
        rest = [i + k for i in range(begin, len(self.data), c.batch) for k in range(share)]
        loader = DataLoader(
            Subset(self.data, rest),
            share,
            num_workers=c.workers,
            persistent_workers=c.workers > 0,
            drop_last=True,
            worker_init_fn=_single_threaded,
        )
        if not rest and self.rank == 0:
            say(f'{self.checkpoint}: the run is already finished, at iteration {self.iteration}')
        self.network.train()
        self._freeze()
        started = time.monotonic()
        with (
            Curves(self.out, self.iteration, enabled=self.rank == 0) as curves,
            Bar(total=c.iterations, initial=self.iteration, unit='it', mininterval=5, disable=self.rank > 0) as bar,
        ):
            for batch in loader:
                losses, clip = self._step(*(part.to(self.device, non_blocking=True) for part in batch))
                self.iteration += 1
                curves.losses(
                    self.iteration, losses, self.learning_rate(self.iteration - 1), time.monotonic() - started
                )
                bar.update()
                bar.set_postfix({key: f'{value:.3f}' for key, value in losses.items()}, refresh=False)
                last = self.iteration == c.iterations
                if c.pictures_every and self.iteration % c.pictures_every == 0:
                    curves.picture(self.iteration, *clip)
                if self.held and c.validate_every and (self.iteration % c.validate_every == 0 or last):
                    self._validate(curves)
                if self.iteration % c.save_every == 0 or last:
                    self._save()

    def averaged_network(self) -> XMemNetwork:
        """Return the network with the moving average of the weights, in evaluation mode."""
        network = XMemNetwork(self.network.config)
        network.load_state_dict(self.average.module.state_dict())
        return network.eval()

    def best_network(self) -> XMemNetwork:
        """Return the averaged network with the best score, or the last one without validation."""
        path = self.out / 'best.pt'
        if not self.held or not path.exists():
            return self.averaged_network()
        return load_network(path)

    def starting_validation(self) -> dict[str, float]:
        """Validate the weights that the run started from."""
        network = XMemNetwork(self.network.config)
        network.load_state_dict(_starting_weights(self.config.start_from))
        return validate(network, self.held, self.device)

    def validation(self, network: XMemNetwork | None = None) -> dict[str, float]:
        """Return the mean IoU of a network (default: the averaged one) on each held-back video."""
        return validate(network or self.averaged_network(), self.held, self.device)

    def close(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _step(self, images: Tensor, labels: Tensor, valid: Tensor) -> tuple[dict[str, float], tuple[Tensor, ...]]:
        c, labels = self.config, labels.long()
        for group in self.optimizer.param_groups:
            group['lr'] = self.learning_rate(self.iteration) * group['rate']
        draw = torch.Generator().manual_seed(c.seed * 1_000_003 + self.iteration)
        low = c.precision != 'float32'
        with torch.autocast(self.device.type, dtype=PRECISIONS[c.precision] if low else None, enabled=low):
            cross, dice, logits = self.loss(images, labels, valid, self.iteration, draw)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(cross + dice).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), c.gradient_clip or float('inf'))
        self.skipped = 0 if torch.isfinite(norm) else self.skipped + 1
        if not self.skipped:
            self.scaler.step(self.optimizer)
            self.average.update_parameters(self.network)
        elif self.skipped >= MOST_SKIPPED:
            raise TrainingError(
                f'iteration {self.iteration}: {self.skipped} steps in a row had no finite gradient; '
                'lower learning_rate, set gradient_clip, or train in float32'
            )
        self.scaler.update()
        losses = torch.stack([cross.detach(), dice.detach()])
        if self.world > 1:
            dist.all_reduce(losses)
            losses /= self.world
        values = {'cross_entropy': losses[0].item(), 'dice': losses[1].item(), 'gradient': norm.item()}
        return values, (images[0], labels[0], logits[0].detach())

    def _validate(self, curves: Curves) -> None:
        if self.rank == 0:
            scores = self.validation()
            score = mean(scores)
            curves.scores(self.iteration, scores, score)
            if score > self.best:
                self.best = score
                _write({'iteration': self.iteration, 'ema': self.average.module.state_dict()}, self.out / 'best.pt')
        if self.world > 1:
            dist.barrier()

    def _save(self) -> None:
        if self.rank:
            return
        state = {
            'config': json.loads(json.dumps(dataclasses.asdict(self.config))),
            'iteration': self.iteration,
            'best': self.best,
            'model': self.network.state_dict(),
            'ema': self.average.module.state_dict(),
            'averaged': self.average.n_averaged,
            'optimizer': self.optimizer.state_dict(),
            'scaler': self.scaler.state_dict(),
        }
        _write(state, self.checkpoint)

    def _load(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint; raises `WeightsError` if this run did not write it."""
        try:
            self._take_over(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, XMemError) as error:
            raise WeightsError(
                f'{self.checkpoint}: damaged, or of another kind of run ({summary_of(error)}); remove it to start over'
            ) from error

    def _take_over(self, state: dict[str, Any]) -> None:
        check_whole('iteration', state['iteration'], 0, self.config.iterations)
        check_number('best', state['best'], -1, 1)
        for name in ('model', 'ema'):
            if not all(torch.isfinite(tensor).all() for tensor in state[name].values()):
                raise ValueError(f'{name} holds values that are not finite')
        self.network.load_state_dict(state['model'])
        self.average.module.load_state_dict(state['ema'])
        self.average.n_averaged = state['averaged'].to(self.device)
        self.optimizer.load_state_dict(state['optimizer'])
        for parameter, kept in self.optimizer.state.items():
            if any(isinstance(t, Tensor) and t.ndim and t.shape != parameter.shape for t in kept.values()):
                raise ValueError('its optimiser belongs to another network')
        self.scaler.load_state_dict(state['scaler'])
        self.iteration, self.best = state['iteration'], state['best']


def _device_of(device: str) -> torch.device:
    """Return the device of this process; under torchrun each process has its own GPU."""
    if device.startswith('cuda') and int(os.environ.get('WORLD_SIZE', '1')) > 1:
        return torch.device('cuda', int(os.environ['LOCAL_RANK']))
    return torch.device(device)


def _join_processes(device: torch.device) -> tuple[int, int]:
    """Join the process group under torchrun; return rank and number of processes."""
    world = int(os.environ.get('WORLD_SIZE', '1'))
    if world == 1:
        return 0, 1
    if not dist.is_initialized():
        if device.type == 'cuda':
            torch.cuda.set_device(device)
        # one process validates while the others wait
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo', timeout=timedelta(hours=3))
    return dist.get_rank(), world


def _single_threaded(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are parallel already


def _write(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically."""
    with atomic.writing(path) as part:
        torch.save(state, part)


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        state = torch_files.load(path)
    except WeightsError as error:
        raise WeightsError(f'not readable as a checkpoint: {error}; or {remedy}') from error
    if not isinstance(state, dict):
        raise WeightsError(f'{path}: not a checkpoint of a training run; {remedy}')
    return state


def _starting_weights(name: str) -> dict[str, Tensor]:
    """Load weights by name or file; from a checkpoint, the averaged ones."""
    return load_network(find_weights(name)).state_dict()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d) and module.bias is None:
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
