# SPDX-License-Identifier: MIT
"""Segmenter: predicts masks and writes memory frames.

Objects are known here by their row in the tensors, see `xmem_ros.objects`.
Letters: O objects, Q query positions, H×W the padded working size, h×w at stride 16.
"""

import contextlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.engines.onnx_runtime import OnnxNetwork
from xmem_ros.host_memory import release_freed_memory
from xmem_ros.memory.gallery import Gallery, appearance, colours_of, confidence
from xmem_ros.memory.memory import SIMILARITY_BUFFER_BYTES, Memory, Reading, near_mask
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import owners
from xmem_ros.network.aggregation import aggregate
from xmem_ros.network.model import STRIDE, EncodedImage
from xmem_ros.tracker.config import TrackerConfig
from xmem_ros.tracker.engine import Engine
from xmem_ros.tracker.geometry import FrameGeometry
from xmem_ros.tracker.memory_budget import fitted
from xmem_ros.tracker.stage_timer import StageTimer
from xmem_ros.tracker.stores import SegmenterState, Stores

CHUNKS = 16  # factor by which `shrink` reduces the buffer of a read
LEAST_SIZE = 96  # px, shorter side; below it, stride 16 leaves too few positions


@dataclass(frozen=True)
class Prediction:
    """Masks of some objects in a frame, in the order of `rows`; `commit` applies them."""

    rows: list[int]
    prob: Tensor  # O×H×W, aggregated
    confidence: Tensor  # O, 0…1, from the likeness to the object's appearances
    visible: Tensor  # O bool: area and score are at least their minimum
    sensory: Tensor | None  # O×CS×h×w, the next state; None: unchanged
    readings: dict[int, Reading]


@dataclass(frozen=True)
class MemoryUpdate:
    """Changes that a frame makes to the memory; `write` applies them."""

    rows: list[int]
    positions: Positions
    near: dict[int, Tensor]  # row of each seeded object → h×w bool, positions in and around it
    appearances: Tensor  # O×(C+COLOURS)
    visible: Tensor  # O bool
    presence: Tensor  # O×Q, share of each position that a visible object covers
    sensory: dict[int, Tensor]  # row → next state
    seeded_only: bool  # whether only the seeded objects get values


class Segmenter:
    """Network, and the memory and sensory state of each object.

    `predict` and `encode_memory` compute without changing the state. `commit` and `write` change
    it. They allocate little, so that they do not run out of memory half-way.
    """

    def __init__(self, network: Engine, config: TrackerConfig, device: torch.device, dtype: torch.dtype):
        self.network, self.config, self.device, self.dtype = network, config, device, dtype
        self.geometry: FrameGeometry | None = None  # of the newest frame
        self.gallery = self._new_gallery()
        self._memory_config = config.memory  # after shrinking; the budget may reduce it further
        self._similarity_bytes = SIMILARITY_BUFFER_BYTES
        self._chunked = self._halved = False  # steps of `shrink` already taken
        self._requested_size: tuple[int, int] | None = None  # H, W of the latest image to allocate for
        self._stores: Stores | None = None
        self._parked: SegmenterState | None = None  # the state while there are no stores

    @property
    def stores(self) -> Stores:
        """Current stores; raises `RuntimeError` before `allocate`."""
        if self._stores is None:
            raise RuntimeError('the segmenter has no stores: call allocate first')
        return self._stores

    @property
    def memory(self) -> Memory | None:
        """Memory of the current stores; None before the first frame."""
        stores = self._stores  # read once: called from the diagnostics' thread, too
        return None if stores is None else stores.memory

    @property
    def nbytes(self) -> int:
        """Bytes allocated for memory."""
        stores = self._stores  # read once: called from the diagnostics' thread, too
        return 0 if stores is None else stores.nbytes + self.gallery.nbytes

    @property
    def value_dtype(self) -> torch.dtype:
        """Type of the values in memory."""
        return self.dtype if self.device.type == 'cuda' else torch.float32

    # --- stores

    def allocate(self, geometry: FrameGeometry) -> None:
        """Allocate stores for a frame size, and move the current state into them.

        Raises `FrameError` if the memory budget is too small.
        """
        if self._stores is not None and self._stores.geometry.grid_size == geometry.grid_size:
            self._stores.geometry = self.geometry = geometry
            return
        self._requested_size = geometry.image_size
        memory = fitted(geometry, self.config, self._memory_config, self.network.config, self.value_dtype)
        self._release_stores()  # before new ones are allocated
        net, rows, (height, width) = self.network.config, self.config.max_objects, geometry.grid_size
        key_value = net.key_dim, net.value_dim, self.device, self.value_dtype
        sizes = Memory(memory, height * width, rows, *key_value, self._similarity_bytes)
        sensory = self.network.zero_sensory(1, rows, (height, width))
        last_seen = torch.zeros(rows, height, width, device=self.device)
        stores = Stores(geometry, sizes, None if sensory is None else sensory[0], last_seen)
        if self._parked is not None:
            stores.import_state(self._parked)
        self._stores, self._parked, self.geometry = stores, None, geometry
        release_freed_memory()

    def shrink(self) -> str:
        """Take the next measure to need less memory; returns its description.

        Measures, in order: read in smaller chunks (results stay the same), halve long-term memory,
        lower the working size. The stores are released; the next frame allocates smaller ones with
        the same objects. Returns '' if no measure is left.
        """
        if self._stores is not None and not self._chunked:
            smaller = self._stores.memory.similarity_bytes // CHUNKS
            self._release_stores()
            self._similarity_bytes, self._chunked = smaller, True
            return 'memory is read in smaller parts'
        config = self._memory_config
        if not self._halved and config.long_term and config.long_term_elements // 2 >= config.prototypes:
            held = self._stores.memory.config.long_term_elements if self._stores is not None else None
            elements = max((held or config.long_term_elements) // 2, config.prototypes)
            self._release_stores()
            self._memory_config, self._halved = replace(config, long_term_elements=elements), True
            return f'long-term memory was halved to {elements} elements'
        if isinstance(self.network, OnnxNetwork):
            return ''  # models for another size would take more memory to export and load
        size = self.config.size or (min(self._requested_size) if self._requested_size else LEAST_SIZE)
        if size <= LEAST_SIZE:
            return ''
        smaller = max(int(size * 0.75), LEAST_SIZE)
        self._release_stores()
        self.config = replace(self.config, size=smaller)
        return f'the working size was lowered to {smaller} px'

    def _release_stores(self) -> None:
        """Free the stores; their state waits in host memory for `allocate`."""
        if self._stores is not None:
            self._parked = self.export_state() if self._stores.memory.rows else None
            self._stores = None

    def _new_gallery(self) -> Gallery:
        return Gallery(self.config.max_objects, self.network.config.feature_widths[0], self.device)

    # --- state

    def export_state(self) -> SegmenterState:
        """Copy the state to host memory."""
        if self._stores is None and self._parked is not None:
            return self._parked
        stores = self.stores
        rows = stores.memory.rows
        return SegmenterState(
            stores.geometry,
            stores.memory.export_state('cpu'),
            None if stores.sensory is None else stores.sensory[rows].cpu(),
            stores.last_seen[rows].cpu(),
            self.gallery.vectors[rows].cpu(),
            self.gallery.filled[rows].cpu(),
            [self.gallery.seeds[row] for row in rows],
        )

    def import_state(self, state: SegmenterState | None) -> None:
        """Restore a state (None: an empty one); the next frame allocates the stores."""
        gallery = self._new_gallery()
        if state is not None:
            for i, row in enumerate(state.memory.cohorts):
                gallery.vectors[row].copy_(state.appearances[i])
                gallery.filled[row].copy_(state.filled[i])
                gallery.seeds[row] = state.seeds[i]
        self.gallery, self._parked = gallery, state  # from here on nothing fails
        self._stores = None

    # --- objects

    def join(self, rows: list[int]) -> None:
        """Add new objects that are seeded together."""
        if rows:
            self.stores.memory.join(rows)
            self.stores.reset_sensory(rows)

    def reset_sensory(self, rows: list[int]) -> None:
        """Reset the sensory memory of objects to that of new ones."""
        if self._stores is not None:
            self._stores.reset_sensory(rows)

    def leave(self, row: int) -> None:
        """Remove an object; the others stay as they are."""
        if self._stores is not None:
            self._stores.memory.leave(row)
        elif self._parked is not None:
            self._parked = self._parked.without(row)
        self.gallery.clear_row(row)

    def clear(self) -> None:
        """Remove all objects."""
        for row in range(self.config.max_objects):
            self.gallery.clear_row(row)
        self._parked = None
        if self._stores is not None:
            self._stores.memory.clear()

    # --- computing

    def encode(self, image: Tensor) -> EncodedImage:
        """Encode an image 1×3×H×W to key, shrinkage, selection and features."""
        with self._autocast():
            return self.network.encode_image(image)

    def predict(
        self, image: Tensor, encoded: EncodedImage, rows: list[int], *, update: bool, timer: StageTimer | None = None
    ) -> Prediction:
        """Segment objects in an image 1×3×H×W; update: whether to compute the sensory state."""
        stores, timer = self.stores, timer or StageTimer(self.device)
        with timer('match'):
            height, width = encoded.key.shape[-2:]
            query = encoded.key[0].flatten(1).T.contiguous()
            selection = encoded.selection[0].flatten(1).T.contiguous()
            read, readings = stores.memory.read(query, selection, rows)  # O×Q×CV
            readout = read.transpose(1, 2).reshape(1, len(rows), -1, height, width)
        with timer('decode'), self._autocast():
            before = None if stores.sensory is None else stores.sensory[rows].unsqueeze(0)
            logits, sensory = self.network.decode(encoded.features, readout, before, update)
            prob = aggregate(torch.sigmoid(logits[0]), 0)[1:]
        with timer('match'):
            inside = masks_of(prob)
            looks = self._appearances(image, encoded, inside)
            alike = self.gallery.likeness(looks, rows)
            sure = confidence(alike, self._nearby(inside, rows), self.network.config.likeness)
            visible = self._visible(prob, inside, sure)
        return Prediction(rows, prob, sure, visible, sensory[0] if update and sensory is not None else None, readings)

    def likeness(self, image: Tensor, masks: Tensor, rows: list[int]) -> Tensor:
        """Compare masks M×H×W of an image 1×3×H×W with objects' appearances: M×O, −1…1."""
        looks = self._appearances(image, self.encode(image), masks)
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
        seeded_only: bool,
    ) -> MemoryUpdate:
        """Encode a memory frame.

        Arguments:
            image: 1×3×H×W.
            masks, visible: O×H×W probabilities and O bool, in the order of `rows`.
            seeded: row → H×W mask of each object seeded in this frame.
            deep_update: rows whose sensory state gets a deep update from the new value.
            seeded_only: whether to store values of the seeded objects only.
        """
        pixels = masks_of(masks)
        inside = presence(pixels)
        # an object without pixels has no appearance, even if it counts as visible
        shown = visible & (inside.sum(1) > 0)
        if seeded_only:
            shown &= torch.tensor([row in seeded for row in rows], device=visible.device)
        covered = presence(masks * shown[:, None, None])
        appearances = self._appearances(image, encoded, pixels)
        if self._memory_config.guard:
            masks = masks * visible[:, None, None]
        stored = self.stores.sensory
        before = None if stored is None else stored[rows].unsqueeze(0)
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
        return MemoryUpdate(rows, positions, near, appearances, shown, covered, states, seeded_only)

    # --- changing the state

    def commit(self, prediction: Prediction) -> None:
        """Apply a prediction to the usage, the last positions and the sensory state."""
        stores = self.stores
        seen = prediction.prob * prediction.visible[:, None, None]
        stores.memory.count(prediction.readings, prediction.rows, presence(seen))
        stores.last_seen[prediction.rows] = presence(masks_of(seen)).view(-1, *stores.last_seen.shape[1:])
        if prediction.sensory is not None and stores.sensory is not None:
            stores.sensory[prediction.rows] = prediction.sensory

    def write(self, update: MemoryUpdate) -> None:
        """Apply a memory update; `consolidate` may be due afterwards."""
        stores = self.stores
        stores.memory.add(update.positions, update.near, seeded_only=update.seeded_only)
        self.gallery.remember(update.appearances, update.rows, update.visible, list(update.near))
        if stores.sensory is not None:
            for row, state in update.sensory.items():
                stores.sensory[row].copy_(state)
        for row in update.near:
            stores.last_seen[row].copy_(update.presence[update.rows.index(row)].view_as(stores.last_seen[row]))

    def consolidate(self) -> None:
        """Turn old working frames into prototypes if working memory is full."""
        if self._stores is None and self._parked is not None:
            self.allocate(FrameGeometry.of(self._parked.geometry.image_size, self.config.size))
        if self._stores is not None:
            self._stores.memory.consolidate()

    def drop_oldest(self) -> None:
        """Drop old working frames without consolidation if working memory is full."""
        if self._stores is not None:
            self._stores.memory.drop_oldest()

    # --- parts

    def _appearances(self, image: Tensor, encoded: EncodedImage, masks: Tensor) -> Tensor:
        """Return the appearances O×(C+COLOURS) under masks O×H×W."""
        return appearance(encoded.features[0][0].flatten(1), presence(masks), colours_of(image, masks))

    def _nearby(self, inside: Tensor, rows: list[int]) -> Tensor:
        """Return O bool: whether most of each mask O×H×W is at or next to its last position."""
        around = F.max_pool2d(self.stores.last_seen[rows], 3, 1, 1).flatten(1) > 0
        now = presence(inside)
        return (now * around).sum(1) > 0.5 * now.sum(1)

    def _visible(self, prob: Tensor, inside: Tensor, sure: Tensor) -> Tensor:
        """Return O bool: whether area and score reach `min_area` and `min_score`.

        prob, inside: probabilities and masks O×H×W; sure: confidences O.
        """
        area = inside.sum((1, 2))
        score = (prob * inside).sum((1, 2)) / area.clamp_min(1) * sure
        least = max(self.config.min_area * self.stores.geometry.scale, 1)
        return (area >= least) & (score >= self.config.min_score)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def masks_of(prob: Tensor) -> Tensor:
    """Return O×H×W bool: where each object exceeds all others and the background.

    prob: O×H×W aggregated probabilities.
    """
    best, plane = prob.max(0)
    return (plane == torch.arange(prob.shape[0], device=prob.device)[:, None, None]) & (best > 1 - prob.sum(0))


def presence(masks: Tensor) -> Tensor:
    """Return the share of each position that an object covers: masks O×H×W → O×Q."""
    return F.avg_pool2d(masks[None].float(), STRIDE)[0].flatten(1)
