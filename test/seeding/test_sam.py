# SPDX-License-Identifier: MIT
"""Seeders from ONNX models of SAM, SAM 2 and EfficientSAM, here tiny models with their interfaces.

The encoders pass the image on as features. The decoders answer with the pixels that are brighter
than a grey given in the models, so a bright rectangle on black is found wherever it lies, and the
frame's way through scaling, padding and back is seen in pixels.
"""

import numpy as np
import pytest
from needs import require

require('onnxruntime', 'onnxscript')

import torch
from torch import nn

from xmem_ros.errors import SeedError, WeightsError
from xmem_ros.seeding.seeder import make_seeder

SIDE = 64  # px of the encoders' input
FRAME = np.zeros((30, 80, 3), np.uint8)
FRAME[9:21, 40:64] = 255
TRUE = FRAME[:, :, 0] > 0
BOX = (38, 7, 28, 16)


class Encoder(nn.Module):
    """Brightness at a quarter of the size, as features."""

    def forward(self, image):
        return nn.functional.avg_pool2d(image.mean(1, keepdim=True), 4)


class PlainEncoder(nn.Module):
    """As `Encoder`, of H×W×3 RGB that it normalises and pads itself."""

    def forward(self, image):
        grey = (image / 127.5 - 1).mean(2)[None, None]
        grey = nn.functional.pad(grey, (0, SIDE - grey.shape[3], 0, SIDE - grey.shape[2]), value=-1.0)
        return nn.functional.avg_pool2d(grey, 4)


class PyramidEncoder(nn.Module):
    def forward(self, image):
        features = Encoder()(image)
        return features, nn.functional.avg_pool2d(features, 2), features


class Decoder(nn.Module):
    """Three candidates: nothing, what is bright, everything."""

    def answer(self, features, labels, mask_input, has_mask_input):
        # a given mask replaces the brightness, so that its way through the prompts is seen too
        bright = features * (1 - has_mask_input) + mask_input * has_mask_input
        unused = 0 * labels.sum()
        masks = torch.cat([bright * 0 - 1, bright + unused, bright * 0 + 1], 1)
        return masks, torch.tensor([[0.1, 0.9, 0.5]]) + unused


class SamDecoder(Decoder):
    def forward(self, image_embeddings, point_coords, point_labels, mask_input, has_mask_input, orig_im_size):
        unused = 0 * (point_coords.sum() + orig_im_size.sum())
        masks, quality = self.answer(image_embeddings + unused, point_labels, mask_input, has_mask_input)
        return masks * 0, quality, masks


class Sam2Decoder(Decoder):
    def forward(
        self, image_embed, high_res_feats_0, high_res_feats_1, point_coords, point_labels, mask_input, has_mask_input
    ):
        unused = 0 * (point_coords.sum() + high_res_feats_0.sum() + high_res_feats_1.sum())
        return self.answer(image_embed + unused, point_labels, mask_input, has_mask_input)


class EfficientDecoder(Decoder):
    def forward(self, image_embeddings, batched_point_coords, batched_point_labels, orig_im_size):
        unused = 0 * (batched_point_coords.sum() + orig_im_size.sum())
        none = torch.zeros_like(image_embeddings)
        masks, quality = self.answer(image_embeddings - 0.5 + unused, batched_point_labels, none, torch.zeros(1))
        return masks[None], quality[None]


def export(model, inputs, outputs, path, free=()):
    axes = {name: {index: f'{name}_{index}' for index in range(inputs[name].dim())} for name in free}
    torch.onnx.export(
        model.eval(),
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_axes=axes,
        dynamo=False,
    )


def prompts(prefix=''):
    lead = (1, 1) if prefix else (1,)
    return {f'{prefix}point_coords': torch.zeros(*lead, 3, 2), f'{prefix}point_labels': torch.zeros(*lead, 3)}


QUARTER = SIDE // 4
MASKS = {'mask_input': torch.zeros(1, 1, QUARTER, QUARTER), 'has_mask_input': torch.zeros(1)}
FEATURES = torch.zeros(1, 1, QUARTER, QUARTER)
IMAGE = torch.zeros(1, 3, SIDE, SIDE)


def make_sam(folder):
    export(Encoder(), {'images': IMAGE}, ['embeddings'], folder / 'a.onnx')
    export(
        SamDecoder(),
        {'image_embeddings': FEATURES, **prompts(), **MASKS, 'orig_im_size': torch.zeros(2)},
        ['masks', 'iou_predictions', 'low_res_masks'],
        folder / 'b.onnx',
        ('point_coords', 'point_labels'),
    )


def make_sam2(folder):
    names = ['high_res_feats_0', 'high_res_feats_1', 'image_embed']
    export(PyramidEncoder(), {'image': IMAGE}, names, folder / 'sam2.encoder.onnx')
    export(
        Sam2Decoder(),
        {
            'image_embed': FEATURES,
            'high_res_feats_0': FEATURES,
            'high_res_feats_1': FEATURES[..., ::2, ::2],
            **prompts(),
            **MASKS,
        },
        ['masks', 'iou_predictions'],
        folder / 'sam2.decoder.onnx',
        ('point_coords', 'point_labels'),
    )


def make_efficient(folder):
    export(Encoder(), {'batched_images': IMAGE}, ['image_embeddings'], folder / 'encoder.onnx', ['batched_images'])
    export(
        EfficientDecoder(),
        {'image_embeddings': FEATURES, **prompts('batched_'), 'orig_im_size': torch.zeros(2, dtype=torch.int64)},
        ['output_masks', 'iou_predictions'],
        folder / 'decoder.onnx',
        ('image_embeddings', 'batched_point_coords', 'batched_point_labels'),
    )


MAKERS = {'SAM': make_sam, 'SAM 2': make_sam2, 'EfficientSAM': make_efficient}


@pytest.fixture(params=list(MAKERS))
def seeder(request, tmp_path):
    MAKERS[request.param](tmp_path)
    found = make_seeder.__wrapped__(str(tmp_path))
    assert found.kind == request.param
    return found


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_the_best_candidate_lies_where_the_frame_shows_it(seeder):
    assert iou(seeder.from_box(FRAME, BOX), TRUE) > 0.7  # at a quarter of the size
    assert iou(seeder.from_points(FRAME, np.array([[50, 15]]), np.array([1])), TRUE) > 0.7


def test_candidates_come_best_first_without_empty_ones(seeder):
    found = seeder.candidates_of_points(FRAME, np.array([[50, 15], [3, 3]]), np.array([1, 0]))
    assert [round(candidate.quality, 2) for candidate in found] == [0.9, 0.5]
    assert found[1].mask.all()


@pytest.mark.parametrize('kind', ['SAM', 'SAM 2'])
def test_points_correct_the_mask_so_far(kind, tmp_path):
    MAKERS[kind](tmp_path)
    given = np.zeros(TRUE.shape, bool)
    given[5:25, 8:32] = True
    found = make_seeder.__wrapped__(str(tmp_path)).from_points(FRAME, np.array([[50, 15]]), np.array([0]), given)
    assert iou(found, given) > 0.7


def test_efficient_sam_begins_a_new_mask(tmp_path):
    make_efficient(tmp_path)
    seeder = make_seeder.__wrapped__(str(tmp_path))
    with pytest.raises(SeedError, match='no point on the object'):
        seeder.from_points(FRAME, np.array([[50, 15]]), np.array([0]), TRUE)


def test_an_encoder_with_its_own_normalisation_gets_rgb(tmp_path):
    make_sam(tmp_path)
    image = torch.zeros(24, SIDE, 3)
    (tmp_path / 'a.onnx').unlink()
    export(PlainEncoder(), {'input_image': image}, ['image_embeddings'], tmp_path / 'a.onnx')
    seeder = make_seeder.__wrapped__(str(tmp_path))
    pixels, fit = seeder._prepared(FRAME)
    assert pixels.shape == (384, 1024, 3)
    assert pixels.max() == 255
    assert fit.whole == (1024, 1024)


def test_the_image_is_encoded_once(seeder, monkeypatch):
    runs = []
    real = type(seeder)._run
    monkeypatch.setattr(type(seeder), '_run', lambda self, model, given: runs.append(model) or real(self, model, given))
    for x in (45, 50, 55):
        seeder.from_points(FRAME, np.array([[x, 15]]), np.array([1]))
    assert runs.count(seeder._encoder) == 1
    assert runs.count(seeder._decoder) == 3


def test_a_folder_without_two_models_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r'has 0 \.onnx files; it must have two'):
        make_seeder(str(tmp_path))
    with pytest.raises(WeightsError, match='cannot be read.*bundled, grabcut, or a folder'):
        make_seeder(str(tmp_path / 'missing'))


def test_files_that_are_not_models_are_refused(tmp_path):
    for name in ('a.onnx', 'b.onnx'):
        (tmp_path / name).write_bytes(b'not a model')
    with pytest.raises(WeightsError, match='cannot be loaded as an ONNX model'):
        make_seeder(str(tmp_path))


def test_two_encoders_are_refused(tmp_path):
    for name in ('a.onnx', 'b.onnx'):
        export(Encoder(), {'images': IMAGE}, ['embeddings'], tmp_path / name)
    with pytest.raises(WeightsError, match='not the models of a SAM'):
        make_seeder(str(tmp_path))
