# SPDX-License-Identifier: MIT
"""Curves of a run: losses and scores as JSON lines; in TensorBoard, if installed, pictures too."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from xmem_ros import atomic
from xmem_ros.errors import OutputError, ParameterError, Setting, naming
from xmem_ros.network.model import IMAGE_MEAN, IMAGE_STD
from xmem_ros.overlay import PALETTE


class Curves:
    """Writer of curves. Lines after the iteration from which a run resumes are removed.

    Arguments:
        folder: folder of the run.
        iteration: first iteration of the run.
        enabled: False for all but one of several processes.
    """

    def __init__(self, folder: Path, iteration: int, *, enabled: bool = True):
        self.folder, self.enabled = folder, enabled
        self._board: Any = None
        if not enabled:
            return
        board = folder / 'tensorboard'
        if board.is_symlink():
            text = f'{board}: a symbolic link, which is not followed; move it away, or choose another folder'
            raise naming(Setting.DESTINATION, OutputError(text))
        for name in ('log.jsonl', 'validation.jsonl'):
            _truncate(folder / name, iteration)
        self._log = _opened(folder / 'log.jsonl')
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print('no curves in TensorBoard: tensorboard is not installed (pip install tensorboard)')
            return
        self._board = SummaryWriter(str(board), purge_step=iteration + 1)

    def losses(self, iteration: int, losses: dict[str, float], rate: float, seconds: float) -> None:
        """Write the losses of an iteration."""
        if not self.enabled:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in losses.items()}
        line = {'iteration': iteration, **finite, 'learning_rate': rate, 'seconds': round(seconds, 2)}
        self._log.write(f'{json.dumps(line)}\n'.encode())
        if self._board:
            for name, value in losses.items():
                self._board.add_scalar(f'training/{name}', value, iteration)
            self._board.add_scalar('training/learning_rate', rate, iteration)

    def scores(self, iteration: int, scores: dict[str, float], mean: float) -> None:
        """Write the mean IoU of held-back footage."""
        if not self.enabled:
            return
        with _opened(self.folder / 'validation.jsonl') as file:
            file.write((json.dumps({'iteration': iteration, 'mean': mean, 'sequences': scores}) + '\n').encode())
        if self._board:
            self._board.add_scalar('held_back/mean', mean, iteration)
            for name, value in scores.items():
                self._board.add_scalar(f'held_back/{name}', value, iteration)

    def picture(self, iteration: int, images: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Draw a clip T×3×H×W with labels T×H×W above its prediction (T−1)×(1+O)×H×W."""
        if self._board:
            found = torch.cat([labels[:1], logits.argmax(1)])
            rows = [np.concatenate(_painted(images, plane), 1) for plane in (labels, found)]
            self._board.add_image('clip/truth_and_prediction', np.concatenate(rows), iteration, dataformats='HWC')

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.enabled:
            self._log.close()
        if self._board:
            self._board.close()


def _painted(images: Tensor, labels: Tensor) -> list[np.ndarray]:
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    pixels = ((images.float().cpu() * std + mean) * 255).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    values = labels.cpu().numpy().astype(np.uint8)
    colours = PALETTE[values]
    return list(np.where(values[..., None] > 0, pixels // 2 + colours // 2, pixels))


def _opened(path: Path) -> IO[bytes]:
    try:
        return atomic.open_append(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> Exception:
    text = f'{path}: cannot be written ({error.strerror}); choose another folder'
    return naming(Setting.DESTINATION, OutputError(text))


def _truncate(path: Path, iteration: int) -> None:
    """Remove lines after the last checkpoint, and an incomplete last line.

    Raises:
        ParameterError: the file was not written by a training run; it is not changed.
    """
    if not os.path.lexists(path):
        return
    try:
        atomic.check_target(path)
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    kept = []
    for line in lines:
        if not line.endswith(b'\n'):
            break
        number = _iteration(line)
        if number is None:
            text = f'{path}: does not belong to a training run; move it away, or choose another folder'
            raise naming(Setting.DESTINATION, ParameterError(text))
        if number <= iteration:
            kept.append(line)
    if kept != lines:
        atomic.write_bytes(path, b''.join(kept))


def _iteration(line: bytes) -> int | None:
    """Return the iteration of a line; None for a foreign line."""
    try:
        number = json.loads(line)['iteration']
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if isinstance(number, int) else None
