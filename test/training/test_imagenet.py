# SPDX-License-Identifier: MIT
"""Starting weights from ImageNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torchvision.models import ResNet


def test_starting_weights_compute_the_features_of_the_imagenet_networks() -> None:
    # Imported here: it takes seconds, and every worker of pytest imports this file.
    from torchvision.models import resnet18, resnet50

    from xmem_ros.training.imagenet import starting_network

    key, value = resnet50(), resnet18()
    network = starting_network(key, value).eval()
    image = torch.randn(1, 3, 64, 64)

    def trunk(net: ResNet) -> torch.Tensor:
        x = net.eval().maxpool(net.relu(net.bn1(net.conv1(image))))
        return net.layer3(net.layer2(net.layer1(x)))

    with torch.no_grad():
        assert torch.allclose(network.encode_image(image).features[0], trunk(key), atol=1e-4)
        masks = torch.rand(1, 2, 64, 64)
        assert torch.allclose(network.value_encoder.trunk(torch.cat([image, masks], 1)), trunk(value), atol=1e-4)
