# SPDX-License-Identifier: MIT
"""Network, memory and sensory state of some tensor rows: predict masks, write memory frames."""

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.frames import FrameGeometry
from xmem_ros.memory.gallery import Gallery, appearance, confidence
from xmem_ros.memory.memory import Memory, near_mask
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import owners
from xmem_ros.network.aggregation import aggregate
from xmem_ros.network.model import STRIDE, EncodedImage, XMemNetwork
from xmem_ros.timing import StageTimer
from xmem_ros.tracker_config import TrackerConfig


@dataclass(frozen=True)
class Prediction:
    """Where objects are in a frame, in the order asked for."""

    prob: Tensor  # O×H×W, aggregated
    confidence: Tensor  # O, 0…1, how much what is there looks like the object
    visible: Tensor  # O bool, large and sure enough to be believed


class Segmenter:
    """What a tracker computes and remembers on the device.

    An object is a row here, of the values in memory and of the sensory state. Letters: O objects, H×W the padded
    working size, h×w at stride 16.
    """

    def __init__(self, network: XMemNetwork, config: TrackerConfig, device: torch.device, dtype: torch.dtype):
        self.network, self.config, self.device, self.dtype = network, config, device, dtype
        self.memory: Memory | None = None
        self.sensory: Tensor | None = None  # rows×CS×h×w, float32
        self.last_seen: Tensor | None = None  # rows×h×w, share of each position in the frame before; 0: not visible
        self.gallery = Gallery(config.max_objects, network.config.feature_widths[0], device)
        self.geometry: FrameGeometry | None = None

    @property
    def nbytes(self) -> int:
        """Bytes allocated for memory."""
        sensory = self.sensory.nbytes if self.sensory is not None else 0
        return sensory + (self.memory.nbytes + self.gallery.nbytes if self.memory is not None else 0)

    def prepare(self, geometry: FrameGeometry) -> None:
        """Allocate stores for this size of frame, or carry them over from another."""
        previous, self.geometry = self.geometry, geometry
        if self.memory is not None and previous is not None and previous.grid_size == geometry.grid_size:
            return
        height, width = geometry.grid_size
        net = self.network.config
        old, old_sensory = self.memory, self.sensory
        self.memory = Memory(
            self.config.memory,
            height * width,
            self.config.max_objects,
            net.key_dim,
            net.value_dim,
            self.device,
            self.dtype if self.device.type == 'cuda' else torch.float32,
        )
        self.sensory = self.network.zero_sensory(1, self.config.max_objects, (height, width))
        if self.sensory is not None:
            self.sensory = self.sensory[0]
        last_seen, self.last_seen = (
            self.last_seen,
            torch.zeros(self.config.max_objects, height, width, device=self.device),
        )
        if old is not None and last_seen is not None:
            self.memory.take_over(old)
            self.last_seen.copy_(
                F.interpolate(last_seen[None], (height, width), mode='bilinear', align_corners=False)[0]
            )
            if self.sensory is not None and old_sensory is not None:
                self.sensory.copy_(F.interpolate(old_sensory, (height, width), mode='bilinear', align_corners=False))

    def join(self, rows: list[int]) -> None:
        """New objects, seeded together."""
        assert self.memory is not None
        if rows:
            self.memory.join(rows)
            if self.sensory is not None:
                self.sensory[rows] = 0

    def leave(self, row: int) -> None:
        """Forget an object; the others stay as they are."""
        if self.memory is not None:
            self.memory.leave(row)
            self.gallery.clear_row(row)

    def clear(self) -> None:
        """Forget all objects."""
        if self.memory is not None:
            for row in self.memory.rows:
                self.gallery.clear_row(row)
            self.memory.clear()

    def encode(self, image: Tensor) -> EncodedImage:
        """1×3×H×W → key, shrinkage, selection and features."""
        with self._autocast():
            return self.network.encode_image(image)

    def predict(
        self,
        encoded: EncodedImage,
        rows: list[int],
        *,
        update: bool,
        follow: bool = True,
        timer: StageTimer | None = None,
    ) -> Prediction:
        """Find objects in a frame.

        update: whether the sensory state takes the frame in; follow: whether it is the next frame of the stream, so
        that memory counts what is read.
        """
        assert self.memory is not None
        assert self.last_seen is not None
        timer = timer or StageTimer(self.device)
        with timer('match'):
            height, width = encoded.key.shape[-2:]
            query = encoded.key[0].flatten(1).T.contiguous()
            selection = encoded.selection[0].flatten(1).T.contiguous()
            read, readings = self.memory.read(query, selection, rows)  # O×Q×CV
            readout = read.transpose(1, 2).reshape(1, len(rows), -1, height, width)
        with timer('decode'), self._autocast():
            sensory = None if self.sensory is None else self.sensory[rows].unsqueeze(0)
            logits, sensory = self.network.decode(encoded.features, readout, sensory, update)
            if update and sensory is not None and self.sensory is not None:
                self.sensory[rows] = sensory[0]
            prob = aggregate(torch.sigmoid(logits[0]), 0)[1:]
        with timer('match'):
            inside = masks_of(prob)
            looks = appearance(encoded.features[0][0].flatten(1), presence(inside))
            sure = confidence(self.gallery.likeness(looks, rows), self._nearby(inside, rows))
            visible = self._visible(prob, inside, sure)
            if follow:
                self.memory.count(readings, rows, presence(prob * visible[:, None, None]))
                self.last_seen[rows] = presence(inside * visible[:, None, None]).view(-1, height, width)
        return Prediction(prob, sure, visible)

    def _nearby(self, inside: Tensor, rows: list[int]) -> Tensor:
        """Masks O×H×W → O bool, whether at least half of each lies in or next to where the object was last seen."""
        assert self.last_seen is not None
        around = F.max_pool2d(self.last_seen[rows], 3, 1, 1).flatten(1) > 0
        now = presence(inside)
        return (now * around).sum(1) > 0.5 * now.sum(1)

    def _visible(self, prob: Tensor, inside: Tensor, sure: Tensor) -> Tensor:
        """Probabilities and masks O×H×W, confidences O → O bool, by the same bounds as an object's state."""
        assert self.geometry is not None
        area = inside.sum((1, 2))
        score = (prob * inside).sum((1, 2)) / area.clamp_min(1) * sure
        return (area >= max(self.config.min_area * self.geometry.scale, 1)) & (score >= self.config.min_score)

    def memorise(
        self,
        image: Tensor,
        encoded: EncodedImage,
        masks: Tensor,
        rows: list[int],
        visible: Tensor,
        *,
        seeded: dict[int, Tensor],
        deep_update: list[int],
    ) -> None:
        """Write a memory frame.

        masks: O×H×W, visible: O bool, in the order of `rows`; seeded: row → H×W mask of the objects seeded in it;
        deep_update: rows whose sensory state takes the new value in.
        """
        assert self.memory is not None
        assert self.last_seen is not None
        if self.config.memory.guard:
            masks = masks * visible[:, None, None]
        sensory = None if self.sensory is None else self.sensory[rows].unsqueeze(0)
        with self._autocast():
            value, sensory = self.network.encode_value(image, encoded.features[0], masks[None], sensory, True)
        if sensory is not None and self.sensory is not None:
            for i, row in enumerate(rows):
                if row in deep_update:
                    self.sensory[row] = sensory[0, i]
        covered = presence(masks * visible[:, None, None])
        self.last_seen[list(seeded)] = covered[[rows.index(row) for row in seeded]].view(-1, *self.last_seen.shape[1:])
        looks = appearance(encoded.features[0][0].flatten(1), presence(masks_of(masks)))
        self.gallery.remember(looks, rows, visible, list(seeded))
        frame = Positions.fresh(
            encoded.key[0].flatten(1).T,
            encoded.shrinkage[0].flatten(1).T,
            encoded.selection[0].flatten(1).T,
            value[0].flatten(2).transpose(1, 2),
            owners(covered, rows),
        )
        self.memory.add(frame, {row: near_mask(mask, STRIDE) for row, mask in seeded.items()})

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def masks_of(prob: Tensor) -> Tensor:
    """O×H×W aggregated probabilities → O×H×W bool, where each object is the most probable of all and the background."""
    best, plane = prob.max(0)
    return (plane == torch.arange(prob.shape[0], device=prob.device)[:, None, None]) & (best > 1 - prob.sum(0))


def presence(masks: Tensor) -> Tensor:
    """O×H×W → O×Q, the share of each position that an object covers."""
    return F.avg_pool2d(masks[None].float(), STRIDE)[0].flatten(1)
