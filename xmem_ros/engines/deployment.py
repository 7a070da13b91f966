# SPDX-License-Identifier: MIT
"""Deployment: the same network for inference only, with fewer passes over its data."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xmem_ros.engines.winograd import with_winograd
from xmem_ros.network.blocks import Fuser, SharedConv
from xmem_ros.network.efficientnet_lite import ConvNormAct
from xmem_ros.network.model import XMemNetwork


def deployed(
    network: XMemNetwork, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None
) -> XMemNetwork:
    """Make a network, in place, what only inference needs; it is not to be trained any more.

    Batch norms are folded into their convolutions, those that are shared among objects fall into their two parts, and
    weights are kept as `dtype`, in which autocast would otherwise copy them in every step. For a CPU, ReLU6 becomes
    part of the convolution before it, and in float32 large convolutions become Winograd's.
    """
    _fold_norms(network.eval())
    _split_shared(network)
    if device is not None and torch.device(device).type == 'cpu':
        if dtype == torch.float32:
            with_winograd(network)
        if _onednn_runs(dtype):
            _fuse_activations(network)
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


class ConvAct(nn.Module):
    """A convolution and ReLU6 in one pass of oneDNN, for a CPU: memory traffic bounds the depthwise ones."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """x: B×C×H×W."""
        conv = self.conv
        # autocast does not know this operator
        return torch.ops.mkldnn._convolution_pointwise(
            x.to(conv.weight.dtype),
            conv.weight,
            conv.bias,
            conv.padding,
            conv.stride,
            conv.dilation,
            conv.groups,
            'hardtanh',
            [0.0, 6.0],
            '',
        )


def _onednn_runs(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _fuse_activations(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvNormAct) and isinstance(child.act, nn.ReLU6):
                setattr(module, name, ConvAct(child.conv))
