# SPDX-License-Identifier: MIT
"""Initial weights of `xmem` from ImageNet: ResNet-50 for keys and ResNet-18 for values.

    python -m xmem_ros.training.imagenet imagenet.safetensors

torchvision downloads both from PyTorch's site (about 150 MB).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torchvision.models import ResNet, ResNet18_Weights, ResNet50_Weights, resnet18, resnet50

from xmem_ros.network.config import XMEM
from xmem_ros.network.model import XMemNetwork
from xmem_ros.weights.checkpoint import save_network

KEY_STAGES = {'conv1': 'conv1', 'bn1': 'bn1', 'layer1': 'res2', 'layer2': 'layer2', 'layer3': 'layer3'}
VALUE_STAGES = {'conv1': 'conv1', 'bn1': 'bn1', 'layer1': 'layer1', 'layer2': 'layer2', 'layer3': 'layer3'}


def starting_network(key: ResNet, value: ResNet) -> XMemNetwork:
    """Make an `xmem` network from both ResNets; the weights of the mask channels are zero."""
    network = XMemNetwork(XMEM)
    state = network.state_dict()
    for prefix, stages, trunk in (('key_encoder', KEY_STAGES, key), ('value_encoder', VALUE_STAGES, value)):
        for name, tensor in trunk.state_dict().items():
            stage, _, rest = name.partition('.')
            if stage not in stages:
                continue  # layer4 and the classifier
            target = state[f'{prefix}.{stages[stage]}.{rest}']
            if target.shape != tensor.shape:  # the stem of the value encoder has mask channels
                tensor = torch.cat([tensor, tensor.new_zeros(tensor.shape[0], 2, *tensor.shape[2:])], 1)
            target.copy_(tensor)
    network.load_state_dict(state)
    return network


def main() -> None:
    """Download both networks and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', type=Path, help='ends in .safetensors')
    args = parser.parse_args()
    torch.manual_seed(0)
    key, value = resnet50(weights=ResNet50_Weights.IMAGENET1K_V1), resnet18(weights=ResNet18_Weights.IMAGENET1K_V1)
    save_network(starting_network(key, value), args.file, dtype=torch.float32)


if __name__ == '__main__':
    main()
