# SPDX-License-Identifier: MIT
"""Network, memory and sensory state of some tensor rows: predict masks, write memory frames."""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.frames import FrameGeometry
from xmem_ros.memory.memory import Memory, near_mask
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import owners
from xmem_ros.network.aggregation import aggregate
from xmem_ros.network.model import STRIDE, EncodedImage, XMemNetwork
from xmem_ros.timing import StageTimer
from xmem_ros.tracker_config import TrackerConfig


class Segmenter:
    """What a tracker computes and remembers on the device.

    An object is a row here, of the values in memory and of the sensory state. Letters: O objects, H×W the padded
    working size, h×w at stride 16.
    """

    def __init__(self, network: XMemNetwork, config: TrackerConfig, device: torch.device, dtype: torch.dtype):
        self.network, self.config, self.device, self.dtype = network, config, device, dtype
        self.memory: Memory | None = None
        self.sensory: Tensor | None = None  # rows×CS×h×w, float32
        self.geometry: FrameGeometry | None = None

    @property
    def nbytes(self) -> int:
        """Bytes allocated for memory."""
        sensory = self.sensory.nbytes if self.sensory is not None else 0
        return sensory + (self.memory.nbytes if self.memory is not None else 0)

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
        if old is not None:
            self.memory.take_over(old)
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

    def clear(self) -> None:
        """Forget all objects."""
        if self.memory is not None:
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
        count_usage: bool = True,
        timer: StageTimer | None = None,
    ) -> Tensor:
        """Find objects in a frame: O×H×W probabilities, aggregated, in the order of `rows`.

        update: whether the sensory state takes the frame in.
        """
        assert self.memory is not None
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
        if count_usage:
            with timer('match'):
                seen = prob * self.visible(prob)[:, None, None]
                self.memory.count(readings, rows, F.avg_pool2d(seen[None], STRIDE)[0].flatten(1))
        return prob

    def visible(self, prob: Tensor) -> Tensor:
        """O×H×W probabilities → O bool, whether an object's mask is large and sure enough to be believed."""
        assert self.geometry is not None
        best, plane = torch.cat([1 - prob.sum(0, keepdim=True), prob]).max(0)
        planes = torch.arange(1, prob.shape[0] + 1, device=prob.device)
        inside = plane == planes[:, None, None]
        area = inside.sum((1, 2))
        score = (best * inside).sum((1, 2)) / area.clamp_min(1)
        return (area >= max(self.config.min_area * self.geometry.scale, 1)) & (score >= self.config.min_score)

    def memorise(
        self,
        image: Tensor,
        encoded: EncodedImage,
        masks: Tensor,
        rows: list[int],
        *,
        seeded: dict[int, Tensor],
        deep_update: list[int],
    ) -> None:
        """Write a memory frame.

        masks: O×H×W, in the order of `rows`; seeded: row → H×W mask of the objects seeded in it; deep_update: rows
        whose sensory state takes the new value in.
        """
        assert self.memory is not None
        visible = self.visible(masks)
        for i, row in enumerate(rows):
            if row in seeded:
                visible[i] = True
        if self.config.memory.guard:
            masks = masks * visible[:, None, None]
        sensory = None if self.sensory is None else self.sensory[rows].unsqueeze(0)
        with self._autocast():
            value, sensory = self.network.encode_value(image, encoded.features[0], masks[None], sensory, True)
        if sensory is not None and self.sensory is not None:
            for i, row in enumerate(rows):
                if row in deep_update:
                    self.sensory[row] = sensory[0, i]
        frame = Positions.fresh(
            encoded.key[0].flatten(1).T,
            encoded.shrinkage[0].flatten(1).T,
            encoded.selection[0].flatten(1).T,
            value[0].flatten(2).transpose(1, 2),
            owners(F.avg_pool2d((masks * visible[:, None, None])[None], STRIDE)[0].flatten(1), rows),
        )
        self.memory.add(frame, {row: near_mask(mask, STRIDE) for row, mask in seeded.items()})

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
