# SPDX-License-Identifier: MIT
"""Training of the prompt network, which makes masks of boxes and points.

    python -m xmem_ros.training.prompts --data DATA --videos davis-train --stills coco --out RUN

The encoder begins with the published ImageNet weights of EfficientNet-Lite0. A simulated user
gives a box or a point, then points in the larger errors. The run resumes from RUN/last.pt. The
result is the moving average of the weights, RUN/prompts.safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from xmem_ros import atomic
from xmem_ros.network.model import image_statistics
from xmem_ros.outside_text import say
from xmem_ros.progress import Bar
from xmem_ros.seeding.prompt_network import MASK_STRIDE, STRIDE, PromptNetwork
from xmem_ros.seeding.prompt_weights import save_prompt_network
from xmem_ros.training.footage import Budget, read_stills, read_videos
from xmem_ros.training.lite import published_lite0, trunk_from_published
from xmem_ros.training.prompt_data import CLOSE, SHAPES, SHARES, Objects, User
from xmem_ros.weights import torch_files

DECAY = 0.998  # of the moving average
BEST_SHARE = 0.8  # of the loss that the best candidate has; the rest is spread over all candidates
GRADIENT_CLIP = 3.0
SHORTER_SIDE = 288  # px of footage
WARMUP = 100  # iterations
SETTLE_AT = 0.78  # share of the run after which batch norms keep their statistics
SETTLE_BATCHES = 40


class PromptTraining:
    """Training run: network, optimiser and their checkpoint."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.checkpoint = args.out / 'last.pt'
        torch.manual_seed(args.seed)
        self.network = PromptNetwork()
        if args.start_from:
            self.network.load_state_dict(torch_files.load(args.start_from)['ema'])
        else:
            trunk_from_published(self.network.trunk, published_lite0())
        trunk = [p for name, p in self.network.named_parameters() if _is_trunk(name)]
        head = [p for name, p in self.network.named_parameters() if not _is_trunk(name)]
        self.optimizer = torch.optim.AdamW(
            [{'params': head, 'rate': 1.0}, {'params': trunk, 'rate': args.trunk_rate}], weight_decay=0.01
        )
        self.average = AveragedModel(self.network, multi_avg_fn=_average, use_buffers=True)
        self.iteration = 0
        self.settled = False  # whether batch norms keep their statistics
        if self.checkpoint.exists():
            self._load(torch_files.load(self.checkpoint))

    def run(self, objects: Objects) -> None:
        """Train to the last iteration; saves regularly and at the end."""
        args = self.args
        log = (args.out / 'log.jsonl').open('a')
        bar = Bar(total=args.iterations, initial=self.iteration, desc='prompts', unit='it')
        with ThreadPoolExecutor(1) as pool, log, bar:
            ahead = pool.submit(self._draw, objects, self.iteration)
            while self.iteration < args.iterations:
                if not self.settled and self.iteration >= SETTLE_AT * args.iterations:
                    self._settle(objects)
                users = ahead.result()
                ahead = pool.submit(self._draw, objects, self.iteration + 1)
                values = self._step(users)
                self.iteration += 1
                log.write(json.dumps({'iteration': self.iteration, **values}) + '\n')
                bar.set_postfix(values, refresh=False)
                bar.update()
                if self.iteration % args.save_every == 0:
                    log.flush()
                    self._save()
        self._save()
        self.network.load_state_dict(self.average.module.state_dict())
        save_prompt_network(self.network.eval(), args.out / 'prompts.safetensors')

    def learning_rate(self) -> float:
        """Return the rate of the current iteration: a linear rise, then a cosine to a hundredth."""
        args = self.args
        progress = self.iteration / args.iterations
        return args.learning_rate * min(
            (self.iteration + 1) / WARMUP, 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2
        )

    def _draw(self, objects: Objects, iteration: int) -> list[User]:
        rng = np.random.default_rng([self.args.seed, iteration % (1 << 63)])
        shape = SHAPES[rng.integers(len(SHAPES))]
        users = []
        for _ in range(self.args.batch):
            kind = int(rng.choice(len(SHARES), p=SHARES))
            close = rng.random() < CLOSE[kind]
            users.append(User(objects.draw(rng, shape, close=close), rng))
            users[-1].begin(kind)
        return users

    def _settle(self, objects: Objects) -> None:
        """Compute the statistics of the batch norms anew, and begin a new average.

        Prompts differ too much from batch to batch for a moving average of the statistics. Until
        the end the network then learns as it will be used.
        """
        norms = [m for name, m in self.network.named_modules() if isinstance(m, nn.BatchNorm2d) and not _is_trunk(name)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
        with torch.no_grad():
            for number in Bar(range(SETTLE_BATCHES), desc='batch norms'):
                self._losses(self._draw(objects, -1 - number))
        self.settled = True
        self.average.n_averaged.zero_()
        self._save()

    def _modes(self) -> None:
        self.network.train()
        for name, module in self.network.named_modules():
            if isinstance(module, nn.BatchNorm2d) and (self.settled or _is_trunk(name)):
                module.eval()  # of the trunk: statistics of ImageNet

    def _step(self, users: list[User]) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group['lr'] = self.learning_rate() * group['rate']
        total, values = self._losses(users)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.average.update_parameters(self.network)
        return {'loss': total.item(), **values}

    def _losses(self, users: list[User]) -> tuple[Tensor, dict[str, float]]:
        """Run two to four rounds of prompts; return the loss and the mean IoU of each."""
        self._modes()
        mean, std = image_statistics(torch.device('cpu'))
        images = torch.from_numpy(np.stack([user.example.image for user in users])).permute(0, 3, 1, 2)
        images = (images.float() / 255 - mean) / std
        true = torch.from_numpy(np.stack([user.example.mask for user in users])).float()[:, None]
        true = F.avg_pool2d(true, MASK_STRIDE)
        features = self.network.features(images.contiguous(memory_format=torch.channels_last))
        rounds = int(users[0].rng.integers(2, 5))
        losses, values = [], {}
        for number in range(rounds):
            maps = torch.from_numpy(np.stack([user.maps() for user in users]))
            logits, quality = self.network(features, maps)
            loss, overlap = prompt_loss(logits, quality, true)
            losses.append(loss)
            best = quality.argmax(1)
            chosen = logits.detach()[torch.arange(len(users)), best]
            values[f'iou_{number + 1}'] = overlap[torch.arange(len(users)), best].mean().item()
            if number + 1 < rounds:
                self._continue(users, chosen)
        return torch.stack(losses).mean(), values

    @staticmethod
    def _continue(users: list[User], logits: Tensor) -> None:
        """Give each user the mask found, logits B×H/2×W/2, to correct."""
        soft = torch.sigmoid(logits)[:, None]
        coarse = F.avg_pool2d(soft, STRIDE // MASK_STRIDE)[:, 0].numpy()
        full = F.interpolate(soft, scale_factor=MASK_STRIDE, mode='bilinear', align_corners=False)[:, 0].numpy()
        for user, mask, probability in zip(users, coarse, full, strict=True):
            user.mask = mask
            user.correct(probability >= 0.5)

    def _save(self) -> None:
        state = {
            'iteration': self.iteration,
            'model': self.network.state_dict(),
            'ema': self.average.module.state_dict(),
            'averaged': self.average.n_averaged,
            'optimizer': self.optimizer.state_dict(),
            'settled': self.settled,
        }
        with atomic.writing(self.checkpoint) as part:
            torch.save(state, part)

    def _load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state['model'])
        self.average.module.load_state_dict(state['ema'])
        self.average.n_averaged = state['averaged']
        self.optimizer.load_state_dict(state['optimizer'])
        self.iteration = state['iteration']
        self.settled = bool(state.get('settled'))


def prompt_loss(logits: Tensor, quality: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss of candidates, most of it from the best one, and of their predicted IoU.

    logits: B×K×h×w, quality: B×K logits, true: B×1×h×w, 0…1.

    Returns:
        The loss, and the IoU of each candidate, B×K.
    """
    wanted = true.expand_as(logits)
    cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction='none')
    # half of the weight on the pixels of the outline and what is wrong (hard pixels)
    flat = cross.flatten(2)
    hard = flat.topk(max(flat.shape[2] // 8, 1), 2).values.mean(2)
    soft = torch.sigmoid(logits)
    both = (soft * wanted).sum((2, 3))
    dice = 1 - (2 * both + 1) / (soft.sum((2, 3)) + wanted.sum((2, 3)) + 1)
    losses = flat.mean(2) + 0.25 * hard + dice
    with torch.no_grad():
        found, there = logits > 0, wanted >= 0.5
        overlap = (found & there).sum((2, 3)) / (found | there).sum((2, 3)).clamp(min=1)
    mask_loss = BEST_SHARE * losses.amin(1).mean() + (1 - BEST_SHARE) * losses.mean()
    quality_loss = F.mse_loss(torch.sigmoid(quality), overlap)
    return mask_loss + quality_loss, overlap


@torch.no_grad()
def _average(averages: Any, values: Any, count: Any) -> None:
    """Update a moving average that forgets its random start."""
    decay = min(DECAY, (float(count) + 1) / (float(count) + 10))
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - decay)
        else:
            average.copy_(value)


def _is_trunk(name: str) -> bool:
    return name.startswith('trunk.') and '.laterals.' not in name


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder that the others are relative to')
    parser.add_argument('--videos', nargs='*', default=[], help='folders of videos: JPEGImages/SEQ, Annotations/SEQ')
    parser.add_argument('--stills', nargs='*', default=[], help='folders of pictures: images/ and masks/')
    parser.add_argument('--weights', nargs='*', type=float, default=[], help='of each folder, videos first')
    parser.add_argument('--out', type=Path, required=True, help='folder of the run')
    parser.add_argument('--start-from', type=Path, help="another run's last.pt")
    parser.add_argument('--iterations', type=int, default=3000)
    parser.add_argument('--batch', type=int, default=12)
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--trunk-rate', type=float, default=0.1, help='as a share (default: %(default)s)')
    parser.add_argument('--save-every', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    budget, footage = Budget(6 << 30), []
    weights = args.weights or [1.0] * (len(args.videos) + len(args.stills))
    for folder, weight in zip([*args.videos, *args.stills], weights, strict=True):
        read = read_videos if folder in args.videos else read_stills
        for item in read(args.data / folder, SHORTER_SIDE, budget=budget):
            item.weight = weight
            footage.append(item)
    objects = Objects(footage)
    say(f'{len(objects)} objects in {len(footage)} videos and pictures')
    PromptTraining(args).run(objects)


if __name__ == '__main__':
    main()
