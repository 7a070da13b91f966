# SPDX-License-Identifier: MIT
"""Masks from boxes and points by a SAM of your own: ONNX models of its encoder and decoder.

SAM (and MobileSAM), SAM 2 and EfficientSAM are told apart by the names of their inputs, as their
usual exporters write them:

- SAM: encoder H×W×3 RGB 0…255, or 1×3×S×S normalised; decoder image_embeddings, point_coords,
  point_labels, mask_input, has_mask_input, orig_im_size.
- SAM 2: encoder 1×3×S×S normalised; decoder image_embed, high_res_feats_0, high_res_feats_1,
  point_coords, point_labels, mask_input, has_mask_input.
- EfficientSAM: encoder batched_images 1×3×H×W, 0…1; decoder image_embeddings,
  batched_point_coords, batched_point_labels, orig_im_size.

Needs onnxruntime, and runs on CUDA if that offers it. Imports no torch.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from xmem_ros.errors import EngineError, SeedError, WeightsError, summary_of
from xmem_ros.seeding.candidates import Candidate, best_first
from xmem_ros.seeding.checks import check_box, check_points, nothing_in
from xmem_ros.seeding.seeder import Seeder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SAM, SAM2, EFFICIENT_SAM = 'SAM', 'SAM 2', 'EfficientSAM'
MOST_BYTES = 4 << 30  # of a model file
SIDE = 1024  # px of the encoder's input, unless the model has another fixed size
LOGIT = 8.0  # of the pixels of a mask that is given
ON, OFF, LEFT_TOP, RIGHT_BOTTOM, PADDING = 1, 0, 2, 3, -1  # labels of points
# of ImageNet, 0…255
MEAN, STD = (np.array(values, np.float32) for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')


class _Fit(NamedTuple):
    """How a frame lies in the encoder's input."""

    size: tuple[int, int]  # H, W of the frame [px]
    scaled: tuple[int, int]  # H, W of the frame in the input [px]
    whole: tuple[int, int]  # H, W of the input [px]; beyond the frame it is empty


class SamSeeder(Seeder):
    """Seeder by a SAM; usable by several threads, which take turns.

    Arguments:
        folder: with two .onnx files, encoder and decoder, of any names.

    Raises:
        WeightsError: they are missing, or not those of a SAM.
        EngineError: onnxruntime is not installed, or cannot load them.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        sessions = [_load(path) for path in _model_files(folder)]
        sessions.sort(key=lambda session: any(name.endswith('point_coords') for name in _inputs(session)))
        self._encoder, self._decoder = sessions
        names = _inputs(self._decoder)
        self.kind = EFFICIENT_SAM if 'batched_point_coords' in names else SAM2 if 'high_res_feats_0' in names else SAM
        self._check()
        self._lock = threading.Lock()
        self._kept: tuple[np.ndarray, dict[str, np.ndarray]] | None = None  # input and features of the last image

    def candidates_of_box(self, frame: np.ndarray, box: Sequence[int]) -> list[Candidate]:
        """Return possible masks of the object in a box, best first; raises `SeedError`."""
        x, y, width, height = check_box(box, frame.shape[:2])
        corners = np.array([[x, y], [x + width, y + height]], np.float64)
        found = self._candidates(frame, corners, [LEFT_TOP, RIGHT_BOTTOM], None)
        if not found:
            raise nothing_in(box)
        return found

    def candidates_of_points(
        self, frame: np.ndarray, points: np.ndarray, point_labels: np.ndarray, mask: np.ndarray | None = None
    ) -> list[Candidate]:
        """Return possible masks of the object under points, best first; raises `SeedError`.

        EfficientSAM cannot correct a mask: with it, the points begin a new one.
        """
        mask = None if self.kind == EFFICIENT_SAM else mask
        pixels, on_object = check_points(points, point_labels, frame.shape[:2], correction=mask is not None)
        found = self._candidates(frame, pixels + 0.5, np.where(on_object, ON, OFF).tolist(), mask)
        if not found:
            raise SeedError('nothing stands out at the points: give more of them on the object, a box or a mask')
        return found

    def _check(self) -> None:
        """Raise `WeightsError` unless encoder and decoder fit together."""
        encoder, decoder = _inputs(self._encoder), _inputs(self._decoder)
        given = {'point_coords', 'point_labels', 'mask_input', 'has_mask_input', 'orig_im_size'}
        given |= {f'batched_{name}' for name in ('point_coords', 'point_labels')}
        features = [output.name for output in self._encoder.get_outputs()]
        unknown = [name for name in decoder if name not in given]
        masks = {output.name for output in self._decoder.get_outputs()}
        faults = {
            f'the encoder has {len(encoder)} inputs and not one': len(encoder) != 1,
            'none of the models has an input point_coords': not any('point_coords' in name for name in decoder),
            f'the decoder needs {", ".join(unknown)}, and the encoder gives {", ".join(features)}': (
                len(unknown) > 1 and not set(unknown) <= set(features)
            ),
            f'the decoder gives {", ".join(sorted(masks))}, without masks and iou_predictions': not (
                masks & {'masks', 'low_res_masks', 'output_masks'} and 'iou_predictions' in masks
            ),
        }
        for fault, there in faults.items():
            if there:
                raise WeightsError(f'{self.folder}: not the models of a SAM: {fault}; see docs/node.md')

    def _candidates(
        self, frame: np.ndarray, points: np.ndarray, labels: list[int], mask: np.ndarray | None
    ) -> list[Candidate]:
        pixels, fit = self._prepared(frame)
        with self._lock:
            given = {**self._features(pixels), **self._prompts(points, labels, mask, fit)}
            wanted = {name: given[name] for name in _inputs(self._decoder)}
            names = [output.name for output in self._decoder.get_outputs()]
            outputs = dict(zip(names, self._run(self._decoder, wanted), strict=True))
        # low_res_masks are preferred: in exports of SAM, `masks` may have the size of another image
        key = next(name for name in ('low_res_masks', 'masks', 'output_masks') if name in outputs)
        if self.kind == EFFICIENT_SAM and 'output_masks' in outputs:
            key = 'output_masks'
        logits = np.asarray(outputs[key], np.float32)
        logits = logits.reshape(-1, *logits.shape[-2:])
        qualities = np.asarray(outputs['iou_predictions'], np.float64).ravel().tolist()
        if len(qualities) != len(logits):
            raise WeightsError(f'{self.folder}: the decoder gives {len(logits)} masks and {len(qualities)} qualities')
        return best_first((_restored(plane, fit) for plane in logits), qualities)

    def _prepared(self, frame: np.ndarray) -> tuple[np.ndarray, _Fit]:
        """Make the encoder's input of a frame."""
        (entry,) = self._encoder.get_inputs()
        size = frame.shape[:2]
        fixed = [side for side in entry.shape[-2:] if isinstance(side, int)]
        side = fixed[0] if len(entry.shape) == 4 and len(fixed) == 2 else SIDE
        scale = side / max(size)
        scaled = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
        if self.kind == SAM2:
            scaled = side, side
        elif self.kind == EFFICIENT_SAM and scale > 1 and not fixed:
            scaled = size
        pixels = cv2.resize(frame, scaled[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        pixels = pixels.astype(np.float32)
        if len(entry.shape) == 3:
            return pixels, _Fit(size, scaled, (side, side))
        pixels = pixels / 255 if self.kind == EFFICIENT_SAM else (pixels - MEAN) / STD
        whole = scaled if self.kind == EFFICIENT_SAM and not fixed else (side, side)
        padded = np.zeros((*whole, 3), np.float32)
        padded[: scaled[0], : scaled[1]] = pixels
        return padded.transpose(2, 0, 1)[None], _Fit(size, scaled, whole)

    def _features(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Run the encoder, or return what it gave for the same image."""
        if self._kept is None or not np.array_equal(self._kept[0], pixels):
            (entry,) = self._encoder.get_inputs()
            names = [output.name for output in self._encoder.get_outputs()]
            found = dict(zip(names, self._run(self._encoder, {entry.name: pixels}), strict=True))
            wanted = [name for name in _inputs(self._decoder) if name not in found and 'embed' in name]
            if len(wanted) == 1 and len(found) == 1:  # the only one, whatever its name
                found = {wanted[0]: next(iter(found.values()))}
            self._kept = pixels, found
        return self._kept[1]

    def _prompts(self, points: np.ndarray, labels: list[int], mask: np.ndarray | None, fit: _Fit) -> dict[str, Any]:
        """Make the decoder's other inputs."""
        scale = np.array([fit.scaled[1] / fit.size[1], fit.scaled[0] / fit.size[0]])
        placed, kinds = points * scale, list(labels)
        if LEFT_TOP not in kinds and self.kind == SAM:  # as its exporter asks for, without a box
            placed, kinds = np.vstack([placed, [[0, 0]]]), [*kinds, PADDING]
        coords, marks = placed[None].astype(np.float32), np.array([kinds], np.float32)
        side = self._mask_side(fit)
        logits = np.zeros((1, 1, *side), np.float32)
        if mask is not None:
            part = np.full(fit.whole, -LOGIT, np.float32)
            known = cv2.resize(mask.astype(np.float32), fit.scaled[::-1], interpolation=cv2.INTER_AREA)
            part[: fit.scaled[0], : fit.scaled[1]] = (known * 2 - 1) * LOGIT
            logits[0, 0] = cv2.resize(part, side[::-1], interpolation=cv2.INTER_AREA)
        sizes = {entry.name: entry.type for entry in self._decoder.get_inputs()}
        whole = np.int64 if 'int64' in sizes.get('orig_im_size', '') else np.float32
        return {
            'point_coords': coords,
            'point_labels': marks,
            'batched_point_coords': coords[None],
            'batched_point_labels': marks[None],
            'mask_input': logits,
            'has_mask_input': np.array([mask is not None], np.float32),
            'orig_im_size': np.array(fit.scaled if self.kind == EFFICIENT_SAM else fit.size, whole),
        }

    def _mask_side(self, fit: _Fit) -> tuple[int, int]:
        shapes = {entry.name: entry.shape for entry in self._decoder.get_inputs()}
        sides = shapes.get('mask_input', ())[-2:]
        fixed = all(isinstance(side, int) for side in sides) and len(sides) == 2
        return (sides[0], sides[1]) if fixed else (fit.whole[0] // 4, fit.whole[1] // 4)

    def _run(self, session: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            found: list[np.ndarray] = session.run(None, inputs)
        except Exception as error:  # of various types
            raise EngineError(f'{self.folder}: the model cannot be run ({summary_of(error)})') from error
        return found


def _restored(logits: np.ndarray, fit: _Fit) -> np.ndarray:
    """Convert logits, h×w, to a mask H×W bool of the frame."""
    if logits.shape not in (fit.size, fit.scaled):  # of the encoder's whole input
        height, width = (
            max(round(side * part / whole), 1)
            for side, part, whole in zip(logits.shape, fit.scaled, fit.whole, strict=True)
        )
        logits = logits[:height, :width]
    enlarged = cv2.resize(np.ascontiguousarray(logits), fit.size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged > 0)


def _model_files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == '.onnx')
    except OSError as error:
        raise WeightsError(
            f'{folder}: cannot be read ({error.strerror}); seeder is bundled, grabcut, or a folder with the ONNX '
            'models of a SAM'
        ) from error
    if len(files) != 2:
        raise WeightsError(f'{folder}: has {len(files)} .onnx files; it must have two, the encoder and the decoder')
    for path in files:
        if path.stat().st_size > MOST_BYTES:
            raise WeightsError(f'{path}: larger than {MOST_BYTES >> 30} GiB')
    return files


def _load(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            'a seeder of ONNX models needs onnxruntime, which is not installed: pip install onnxruntime, or use the '
            'seeder bundled'
        ) from error
    available = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(str(path), providers=[name for name in PROVIDERS if name in available])
    except Exception as error:  # of various types
        raise WeightsError(f'{path}: cannot be loaded as an ONNX model ({summary_of(error)})') from error


def _inputs(session: Any) -> list[str]:
    return [entry.name for entry in session.get_inputs()]
