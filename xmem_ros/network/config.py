# SPDX-License-Identifier: MIT
"""Widths and depths of the network, and how to infer them from a state dict."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from xmem_ros.errors import WeightsError

WIDEST = 8192  # channels; a ResNet has at most 2048
DEEPEST = 100  # blocks of a stage; a ResNet-152 has at most 36
RESNET_STEM, LITE_STEM = 'key_encoder.conv1.weight', 'key_encoder.lite.stem.conv.weight'


@dataclass(frozen=True)
class LikenessThresholds:
    """Likeness thresholds of a set of weights; see `memory.gallery` and `training.calibration`."""

    unlike: float  # likeness of confidence 0
    sure: float  # likeness of confidence 1

    def __post_init__(self) -> None:
        if not -1 <= self.unlike < self.sure <= 1:
            raise WeightsError(
                f'likeness thresholds {self.unlike} and {self.sure}: they are -1 to 1, the first below the second'
            )


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of an XMem network, and what its features mean.

    `*_widths` are the planes of a ResNet trunk's stem and three stages; the output of a bottleneck
    stage has four times its planes. `*_depths` are the blocks of each stage. `lite_widths` and
    `lite_depths` are those of the five stages of an EfficientNet-Lite; `lite_laterals` are the
    channels of its f16, f8 and f4. The key encoder is a ResNet, an EfficientNet-Lite, or both with
    their features added. An absent trunk has empty widths.
    """

    key_bottleneck: bool = True
    key_widths: tuple[int, ...] = (64, 64, 128, 256)
    key_depths: tuple[int, ...] = (3, 4, 6)
    lite_widths: tuple[int, ...] = ()
    lite_depths: tuple[int, ...] = ()
    lite_laterals: tuple[int, ...] = ()
    value_widths: tuple[int, int, int, int] = (64, 64, 128, 256)
    value_depths: tuple[int, int, int] = (2, 2, 2)
    key_dim: int = 64
    value_dim: int = 512
    sensory_dim: int = 64  # 0: no sensory memory
    sensory_mid: int = 256
    decoder_widths: tuple[int, int, int] = (512, 256, 256)  # at strides 16, 8 and 4
    gate_reduction: int = 16
    train_norm: bool = False  # XMem keeps the batch norms of ImageNet
    likeness: LikenessThresholds | None = None  # of the weights, not of the shape; None: not calibrated

    @property
    def feature_widths(self) -> tuple[int, int, int]:
        """Channels of f16, f8 and f4."""
        if not self.key_widths:
            f16, f8, f4 = self.lite_laterals
            return f16, f8, f4
        expansion = 4 if self.key_bottleneck else 1
        _, w4, w8, w16 = self.key_widths
        return w16 * expansion, w8 * expansion, w4 * expansion

    @property
    def shorter_side(self) -> int:
        """Shorter side of frames in px at which the network was trained or published."""
        return 480 if self.key_bottleneck else 240


XMEM = NetworkConfig()
COMPACT = NetworkConfig(
    key_bottleneck=False,
    key_widths=(32, 32, 64, 128),
    key_depths=(2, 2, 4),
    value_widths=(24, 24, 48, 96),
    value_depths=(1, 1, 1),
    key_dim=48,
    value_dim=128,
    sensory_dim=32,
    sensory_mid=64,
    decoder_widths=(128, 96, 64),
    gate_reduction=8,
    train_norm=True,
)
COMPACT_JOINED = replace(
    COMPACT,
    lite_widths=(16, 24, 40, 80, 112),  # EfficientNet-Lite0
    lite_depths=(1, 2, 2, 3, 3),
    lite_laterals=(128, 64, 32),  # as COMPACT's features, so that its value encoder and decoder fit
)
COMPACT_LITE = replace(COMPACT_JOINED, key_widths=(), key_depths=())
CONFIGS = {'xmem': XMEM, 'compact': COMPACT, 'compact_lite': COMPACT_LITE, 'compact_joined': COMPACT_JOINED}


def config_from_state_dict(state: Mapping[str, Any]) -> NetworkConfig:
    """Infer widths and depths from the entries' names and shapes.

    state: name → tensor, or anything with a `shape`. Raises `WeightsError` if an entry of every
    XMem network is missing or sizes contradict each other.
    """

    def width(name: str, dim: int = 0) -> int:
        if name not in state:
            raise WeightsError(f'these are not the weights of an XMem network: the entry {name!r} is missing')
        shape = tuple(state[name].shape)
        if dim >= len(shape) or not 1 <= shape[dim] <= WIDEST:
            raise WeightsError(
                f'these are not the weights of an XMem network: the entry {name!r} has the shape {shape}; 1…{WIDEST} '
                'channels are allowed'
            )
        return int(shape[dim])

    def depth(prefix: str) -> int:
        pattern = re.compile(re.escape(prefix) + r'\.([0-9]{1,4})\.')
        found = {int(m.group(1)) for name in state if (m := pattern.match(name))}
        if not found:
            raise WeightsError(f'these are not the weights of an XMem network: no entry begins with {prefix!r}')
        if found != set(range(len(found))) or len(found) > DEEPEST:
            raise WeightsError(
                f'these are not the weights of an XMem network: the blocks of {prefix!r} must be numbered from 0 '
                f'without gaps and be at most {DEEPEST}'
            )
        return len(found)

    def widths(prefix: str, stages: tuple[str, str, str]) -> tuple[int, int, int, int]:
        first, second, third = (width(f'{prefix}.{stage}.0.conv1.weight') for stage in stages)
        return width(f'{prefix}.conv1.weight'), first, second, third

    def key_trunks() -> dict[str, Any]:
        found: dict[str, Any] = {'key_bottleneck': bottleneck, 'key_widths': (), 'key_depths': ()}
        if LITE_STEM not in state or RESNET_STEM in state:
            found['key_widths'] = widths('key_encoder', ('res2', 'layer2', 'layer3'))
            found['key_depths'] = tuple(depth(f'key_encoder.{stage}') for stage in ('res2', 'layer2', 'layer3'))
        if LITE_STEM in state:
            stages = [f'key_encoder.lite.stages.{i}' for i in range(5)]
            found['lite_widths'] = tuple(width(f'{stage}.0.project.conv.weight') for stage in stages)
            found['lite_depths'] = tuple(depth(stage) for stage in stages)
            found['lite_laterals'] = tuple(width(f'key_encoder.lite.laterals.{i}.weight') for i in range(3))
        return found

    bottleneck = 'key_encoder.res2.0.conv3.weight' in state
    value_stages = ('layer1', 'layer2', 'layer3')
    sensory = 'decoder.hidden_update.transform.weight' in state
    value_dim = width('value_encoder.fuser.block2.conv2.weight')
    reduced = width('value_encoder.fuser.attention.ChannelGate.mlp.1.weight')
    sensory_dim = width('decoder.hidden_update.transform.weight') // 3 if sensory else 0
    if reduced > value_dim or (sensory and not sensory_dim):
        raise WeightsError('these are not the weights of an XMem network: numbers of channels contradict each other')
    return NetworkConfig(
        **key_trunks(),
        value_widths=widths('value_encoder', value_stages),
        value_depths=(depth('value_encoder.layer1'), depth('value_encoder.layer2'), depth('value_encoder.layer3')),
        key_dim=width('key_proj.key_proj.weight'),
        value_dim=value_dim,
        sensory_dim=sensory_dim,
        sensory_mid=width('decoder.hidden_update.g16_conv.weight') if sensory else 0,
        decoder_widths=(
            width('decoder.fuser.block2.conv2.weight'),
            width('decoder.up_16_8.out_conv.conv2.weight'),
            width('decoder.up_8_4.out_conv.conv2.weight'),
        ),
        gate_reduction=value_dim // reduced,
        train_norm=not bottleneck,
    )
