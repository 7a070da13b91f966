# SPDX-License-Identifier: MIT
"""Deployment: optimisation of a network for inference."""

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
    """Optimise a network for inference, in place; afterwards it cannot be trained.

    - Batch norms are folded into their convolutions.
    - Convolutions of [image ‖ g] are split, so that the image's part is computed once.
    - Weights are stored as `dtype`; otherwise autocast would convert them in every step.
    - For a CPU, ReLU6 is fused with the convolution before it.
    - For a CPU and float32, large convolutions use Winograd's algorithm.
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
    # as in the encoders' residual blocks, a batch norm is registered right after its convolution
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
    """Convolution and ReLU6 in one oneDNN operator.

    On a CPU, depthwise convolutions are bound by memory traffic; one pass over the data is faster.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x: B×C×H×W."""
        conv = self.conv
        # autocast does not cover this operator
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
