# SPDX-License-Identifier: MIT
"""Network, memory and sensory state of some tensor rows: predict masks, write memory frames."""

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.host_memory import give_back
from xmem_ros.memory.gallery import Gallery, appearance, colours_of, confidence
from xmem_ros.memory.memory import SIMILARITY_BUFFER_BYTES, Memory, MemoryState, Reading, near_mask
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import owners
from xmem_ros.network.aggregation import aggregate
from xmem_ros.network.model import STRIDE, EncodedImage
from xmem_ros.tracker.config import TrackerConfig
from xmem_ros.tracker.engine import Engine
from xmem_ros.tracker.geometry import FrameGeometry
from xmem_ros.tracker.memory_budget import fitted
from xmem_ros.tracker.stage_timer import StageTimer


@dataclass(frozen=True)
class Prediction:
    """Where objects are in a frame, in the order asked for; nothing has changed by it yet."""

    rows: list[int]
    prob: Tensor  # O×H×W, aggregated
    confidence: Tensor  # O, 0…1, how much what is there looks like the object
    visible: Tensor  # O bool, large and sure enough to be believed
    sensory: Tensor | None  # O×CS×h×w, the new state; None: it stays
    readings: dict[int, Reading]


@dataclass(frozen=True)
class MemoryFrame:
    """What a frame adds to memory; nothing has changed by it yet."""

    rows: list[int]
    positions: Positions
    near: dict[int, Tensor]  # row → h×w bool, in and around the objects seeded in it
    looks: Tensor  # O appearances
    visible: Tensor  # O bool
    covered: Tensor  # O×Q
    sensory: dict[int, Tensor]  # row → new state
    alone: bool  # only the seeded objects are remembered in it


@dataclass
class SegmenterState:
    """All that a segmenter remembers, outside it."""

    geometry: FrameGeometry
    memory: MemoryState
    sensory: Tensor | None  # O×CS×h×w; O in the order of the memory's rows
    last_seen: Tensor  # O×h×w
    looks: Tensor  # O×slots appearances
    filled: Tensor  # O×slots bool
    seeds: list[int]

    def without(self, row: int) -> 'SegmenterState | None':
        """The same with one object less; None where none is left."""
        kept = [i for i, other in enumerate(self.memory.cohorts) if other != row]
        if not kept:
            return None
        return SegmenterState(
            self.geometry,
            self.memory.without(row),
            None if self.sensory is None else self.sensory[kept],
            self.last_seen[kept],
            self.looks[kept],
            self.filled[kept],
            [self.seeds[i] for i in kept],
        )


class Segmenter:
    """What a tracker computes and remembers on the device.

    An object is a row here, of the values in memory and of the sensory state. Letters: O objects, H×W the padded
    working size, h×w at stride 16. `predict` and `encode_memory` compute, `commit` and `write` change what is
    remembered, and need no large memory to do so.
    """

    def __init__(self, network: Engine, config: TrackerConfig, device: torch.device, dtype: torch.dtype):
        self.network, self.config, self.device, self.dtype = network, config, device, dtype
        self.memory_config = config.memory  # as it fits
        self.similarity_bytes = SIMILARITY_BUFFER_BYTES  # that a read may work in
        self.memory: Memory | None = None
        self.sensory: Tensor | None = None  # rows×CS×h×w, float32
        self.last_seen: Tensor | None = None  # rows×h×w, share of each position in the frame before; 0: not visible
        self.gallery = Gallery(config.max_objects, network.config.feature_widths[0], device)
        self.geometry: FrameGeometry | None = None
        self.wanted_size: tuple[int, int] | None = None  # H, W of the images that stores were last asked for
        self._parked: SegmenterState | None = None  # what there was, while there are no stores

    @property
    def nbytes(self) -> int:
        """Bytes allocated for memory."""
        memory = self.memory  # read once: diagnostics ask from another thread
        if memory is None:
            return 0
        planes = [tensor for tensor in (self.sensory, self.last_seen) if tensor is not None]
        return sum(tensor.nbytes for tensor in planes) + memory.nbytes + self.gallery.nbytes

    @property
    def value_dtype(self) -> torch.dtype:
        """Of values in memory."""
        return self.dtype if self.device.type == 'cuda' else torch.float32

    def prepare(self, geometry: FrameGeometry) -> None:
        """Allocate stores for this size of frame, or carry them over from another."""
        if self.memory is not None and self.geometry is not None and self.geometry.grid_size == geometry.grid_size:
            self.geometry = geometry
            return
        self.wanted_size = geometry.image_size
        net, rows, device = self.network.config, self.config.max_objects, self.device
        memory = fitted(geometry, self.config, self.memory_config, net, self.value_dtype)
        self.release_stores()  # the old stores are freed before new ones are made
        height, width = geometry.grid_size
        self.memory = Memory(
            memory, height * width, rows, net.key_dim, net.value_dim, device, self.value_dtype, self.similarity_bytes
        )
        try:
            sensory = self.network.zero_sensory(1, rows, (height, width))
            self.sensory = None if sensory is None else sensory[0]
            self.last_seen = torch.zeros(rows, height, width, device=device)
            self.geometry = geometry
            if self._parked is not None:
                self._fill_stores(self._parked)
        except BaseException:
            self.memory = None
            raise
        self._parked = None
        give_back()

    def release_stores(self) -> None:
        """Free the stores; what is in them waits in the host's memory for `prepare`."""
        if self.memory is not None:
            self._parked = self.export_state() if self.memory.rows else None
            self.memory = self.sensory = self.last_seen = None

    def export_state(self) -> SegmenterState:
        """A copy of all that is remembered, in the host's memory."""
        if self.memory is None and self._parked is not None:
            return self._parked
        assert self.memory is not None
        assert self.geometry is not None
        assert self.last_seen is not None
        rows = self.memory.rows
        return SegmenterState(
            self.geometry,
            self.memory.export_state('cpu'),
            None if self.sensory is None else self.sensory[rows].cpu(),
            self.last_seen[rows].cpu(),
            self.gallery.vectors[rows].cpu(),
            self.gallery.filled[rows].cpu(),
            [self.gallery.seeds[row] for row in rows],
        )

    def import_state(self, state: SegmenterState | None) -> None:
        """Forget everything and remember this; the stores are made with the next frame."""
        gallery = Gallery(self.config.max_objects, self.network.config.feature_widths[0], self.device)
        for i, row in enumerate(state.memory.cohorts if state else ()):
            assert state is not None
            gallery.vectors[row].copy_(state.looks[i])
            gallery.filled[row].copy_(state.filled[i])
            gallery.seeds[row] = state.seeds[i]
        self.gallery, self._parked = gallery, state  # from here on nothing fails
        self.memory = self.sensory = self.last_seen = None

    def _fill_stores(self, state: SegmenterState) -> None:
        assert self.memory is not None
        assert self.last_seen is not None
        rows = list(state.memory.cohorts)
        self.memory.import_state(state.memory)
        if not rows:
            return
        size = tuple(self.last_seen.shape[1:])
        if self.sensory is not None and state.sensory is not None:
            old = state.sensory.to(self.device)
            if tuple(old.shape[2:]) != size:
                old = F.interpolate(old, size, mode='bilinear', align_corners=False)
            self.sensory[rows] = old
        self.last_seen[rows] = F.adaptive_max_pool2d(state.last_seen.to(self.device), size)

    def join(self, rows: list[int]) -> None:
        """New objects, seeded together."""
        assert self.memory is not None
        if rows:
            self.memory.join(rows)
            if self.sensory is not None:
                self.sensory[rows] = 0

    def forget_sensory(self, rows: list[int]) -> None:
        """Have objects begin again with the sensory memory of new ones."""
        if rows and self.sensory is not None:
            self.sensory[rows] = 0

    def leave(self, row: int) -> None:
        """Forget an object; the others stay as they are."""
        if self.memory is not None:
            self.memory.leave(row)
        elif self._parked is not None:
            self._parked = self._parked.without(row)
        self.gallery.clear_row(row)

    def clear(self) -> None:
        """Forget all objects."""
        for row in range(self.config.max_objects):
            self.gallery.clear_row(row)
        self._parked = None
        if self.memory is not None:
            self.memory.clear()

    def encode(self, image: Tensor) -> EncodedImage:
        """1×3×H×W → key, shrinkage, selection and features."""
        with self._autocast():
            return self.network.encode_image(image)

    def predict(
        self, image: Tensor, encoded: EncodedImage, rows: list[int], *, update: bool, timer: StageTimer | None = None
    ) -> Prediction:
        """Find objects in a frame, 1×3×H×W; update: whether the sensory state takes the frame in."""
        assert self.memory is not None
        timer = timer or StageTimer(self.device)
        with timer('match'):
            height, width = encoded.key.shape[-2:]
            query = encoded.key[0].flatten(1).T.contiguous()
            selection = encoded.selection[0].flatten(1).T.contiguous()
            read, readings = self.memory.read(query, selection, rows)  # O×Q×CV
            readout = read.transpose(1, 2).reshape(1, len(rows), -1, height, width)
        with timer('decode'), self._autocast():
            before = None if self.sensory is None else self.sensory[rows].unsqueeze(0)
            logits, sensory = self.network.decode(encoded.features, readout, before, update)
            prob = aggregate(torch.sigmoid(logits[0]), 0)[1:]
        with timer('match'):
            inside = masks_of(prob)
            looks = self._looks(image, encoded, inside)
            alike = self.gallery.likeness(looks, rows)
            sure = confidence(alike, self._nearby(inside, rows), self.network.config.likeness)
            visible = self._visible(prob, inside, sure)
        return Prediction(rows, prob, sure, visible, sensory[0] if update and sensory is not None else None, readings)

    def likeness(self, image: Tensor, masks: Tensor, rows: list[int]) -> Tensor:
        """How much what lies under masks M×H×W of an image 1×3×H×W looks like objects → M×O, −1…1."""
        looks = self._looks(image, self.encode(image), masks)
        return torch.stack([self.gallery.likeness(look.expand(len(rows), -1), rows) for look in looks])

    def encode_memory(
        self,
        image: Tensor,
        encoded: EncodedImage,
        masks: Tensor,
        rows: list[int],
        visible: Tensor,
        *,
        seeded: dict[int, Tensor],
        deep_update: list[int],
        alone: bool,
    ) -> MemoryFrame:
        """Make a memory frame.

        masks: O×H×W, visible: O bool, in the order of `rows`; seeded: row → H×W mask of the objects seeded in it;
        deep_update: rows whose sensory state takes the new value in; alone: whether it is one of the seeded objects
        only.
        """
        pixels = masks_of(masks)
        inside = presence(pixels)
        # one that has no pixel has no looks either, whoever says that it is there
        shown = visible & (inside.sum(1) > 0)
        if alone:
            shown &= torch.tensor([row in seeded for row in rows], device=visible.device)
        covered = presence(masks * shown[:, None, None])
        looks = self._looks(image, encoded, pixels)
        if self.memory_config.guard:
            masks = masks * visible[:, None, None]
        before = None if self.sensory is None else self.sensory[rows].unsqueeze(0)
        with self._autocast():
            value, sensory = self.network.encode_value(image, encoded.features[0], masks[None], before, True)
        positions = Positions.fresh(
            encoded.key[0].flatten(1).T,
            encoded.shrinkage[0].flatten(1).T,
            encoded.selection[0].flatten(1).T,
            value[0].flatten(2).transpose(1, 2),
            owners(covered, rows),
        )
        near = {row: near_mask(mask, STRIDE) for row, mask in seeded.items()}
        states = {} if sensory is None else {row: sensory[0, i] for i, row in enumerate(rows) if row in deep_update}
        return MemoryFrame(rows, positions, near, looks, shown, covered, states, alone)

    def write(self, frame: MemoryFrame) -> None:
        """Remember a memory frame; `Memory.consolidate` may be due then."""
        assert self.memory is not None
        assert self.last_seen is not None
        self.memory.add(frame.positions, frame.near, alone=frame.alone)
        self.gallery.remember(frame.looks, frame.rows, frame.visible, list(frame.near))
        for row, state in frame.sensory.items():
            assert self.sensory is not None
            self.sensory[row].copy_(state)
        for row in frame.near:
            self.last_seen[row].copy_(frame.covered[frame.rows.index(row)].view_as(self.last_seen[row]))

    def consolidate(self) -> None:
        """Make prototypes of working memory where that is due."""
        if self.memory is None and self._parked is not None and self.geometry is not None:
            self.prepare(FrameGeometry.of(self._parked.geometry.image_size, self.config.size))
        if self.memory is not None:
            self.memory.consolidate()

    def commit(self, found: Prediction) -> None:
        """The stream has gone on by the frame of a prediction."""
        assert self.memory is not None
        assert self.last_seen is not None
        seen = found.prob * found.visible[:, None, None]
        self.memory.count(found.readings, found.rows, presence(seen))
        self.last_seen[found.rows] = presence(masks_of(seen)).view(-1, *self.last_seen.shape[1:])
        if found.sensory is not None and self.sensory is not None:
            self.sensory[found.rows] = found.sensory

    def _looks(self, image: Tensor, encoded: EncodedImage, masks: Tensor) -> Tensor:
        """O×H×W masks → O appearances."""
        return appearance(encoded.features[0][0].flatten(1), presence(masks), colours_of(image, masks))

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
