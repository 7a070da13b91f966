# SPDX-License-Identifier: MIT
"""Deployment: the same network for inference only, with fewer passes over its data."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xmem_ros.engines.winograd import with_winograd
from xmem_ros.network.blocks import Fuser, SharedConv
from xmem_ros.network.model import XMemNetwork


def deployed(
    network: XMemNetwork, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None
) -> XMemNetwork:
    """Make a network, in place, what only inference needs; it is not to be trained any more.

    Batch norms are folded into their convolutions, those that are shared among objects fall into their two parts, and
    weights are kept as `dtype`, in which autocast would otherwise copy them in every step. For a CPU in float32, large
    convolutions become Winograd's.
    """
    _fold_norms(network.eval())
    _split_shared(network)
    if device is not None and torch.device(device).type == 'cpu' and dtype == torch.float32:
        with_winograd(network)
    if dtype != torch.float32:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)
    return network


def _fold_norms(network: nn.Module) -> None:
    # in this network, as in torchvision's residual blocks, a batch norm is registered right after its convolution
    for module in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def _split_shared(network: nn.Module) -> None:
    for fuser in (module for module in list(network.modules()) if isinstance(module, Fuser)):
        block = fuser.block1
        for name in ('conv1', 'downsample'):
            conv = getattr(block, name)
            if isinstance(conv, nn.Conv2d):
                setattr(block, name, SharedConv(conv, fuser.image_channels))
