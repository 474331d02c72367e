"""STU-Net, a U-Net of residual blocks that scales in depth and width (Huang et al., 2023, arXiv 2304.06716)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn

STAGES = 6
_LEAK = 0.01


@dataclass(frozen=True)
class STUNetSize:
    """One of the paper's sizes: channels of each stage, and residual blocks of every stage, encoder and decoder."""

    channels: tuple[int, int, int, int, int, int]
    blocks: int


SMALL = STUNetSize((16, 32, 64, 128, 256, 256), blocks=1)
BASE = STUNetSize((32, 64, 128, 256, 512, 512), blocks=1)
LARGE = STUNetSize((64, 128, 256, 512, 1024, 1024), blocks=2)


class STUNet(nn.Module):
    """The network.

    Encoder and decoder have the same six stages of residual blocks with kernels of 3 x 3 x 3. Going down, the first
    block of a stage has the stride; going up, the nearest voxel is repeated and a convolution of 1 x 1 x 1 follows, so
    that no weight's shape depends on the strides. Weights begin as PyTorch's do: with those of nnU-Net's U-Net, the
    connections, which are not normalized, would add up.

    Input (b, c, z, y, x); output (b, output_channels, z, y, x), or with deep supervision a list of five, from full
    resolution to that of the last stage but one.

    Args:
        input_channels, output_channels: of images and segmentation.
        size: one of the paper's.
        strides: (z, y, x) of each stage after the first.
        deep_supervision: whether all resolutions are given; nnU-Net switches it as `decoder.deep_supervision`.
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        *,
        size: STUNetSize,
        strides: Sequence[Sequence[int]],
        deep_supervision: bool,
    ):
        super().__init__()
        if len(strides) != STAGES - 1:
            raise ValueError(f"expected {STAGES - 1} strides, got {len(strides)}")
        coming = (input_channels, *size.channels[:-1])
        self.encoder = nn.ModuleList(
            _stage(inner, outer, size.blocks, stride)
            for inner, outer, stride in zip(coming, size.channels, ((1, 1, 1), *strides), strict=True)
        )
        self.decoder = _Decoder(size, strides, output_channels, deep_supervision)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        features = []
        for stage in self.encoder:
            images = stage(images)
            features.append(images)
        return self.decoder(features)


class _Decoder(nn.Module):
    """From features of all resolutions, the highest first, to segmentations."""

    def __init__(
        self, size: STUNetSize, strides: Sequence[Sequence[int]], output_channels: int, deep_supervision: bool
    ):
        super().__init__()
        self.deep_supervision = deep_supervision
        # Lists from the lowest resolution up.
        channels = size.channels[::-1]
        self.upsampling = nn.ModuleList(
            _repeated_voxels(low, high, stride)
            for low, high, stride in zip(channels, channels[1:], list(strides)[::-1], strict=False)
        )
        self.stages = nn.ModuleList(_stage(2 * high, high, size.blocks) for high in channels[1:])
        self.heads = nn.ModuleList(nn.Conv3d(high, output_channels, 1) for high in channels[1:])

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        *skipped, current = features
        outputs: list[Tensor] = []
        levels = zip(self.upsampling, self.stages, self.heads, skipped[::-1], strict=True)
        for number, (upsampling, stage, head, skip) in enumerate(levels, start=1):
            current = stage(torch.cat((upsampling(current), skip), dim=1))
            if self.deep_supervision or number == len(skipped):
                outputs.append(head(current))
        return outputs[::-1] if self.deep_supervision else outputs[0]


class _ResidualBlock(nn.Module):
    """Two convolutions with instance normalization, and a connection around them, projected in the first of a stage."""

    def __init__(self, input_channels: int, channels: int, stride: Sequence[int], *, projected: bool):
        super().__init__()
        self.first = _convolution(input_channels, channels, stride, nonlin=nn.LeakyReLU)
        self.second = _convolution(channels, channels, (1, 1, 1), nonlin=None)
        z, y, x = stride
        self.around = nn.Conv3d(input_channels, channels, 1, (z, y, x)) if projected else nn.Identity()
        self.activation = nn.LeakyReLU(_LEAK, inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.second(self.first(images)) + self.around(images))


def _stage(input_channels: int, channels: int, blocks: int, stride: Sequence[int] = (1, 1, 1)) -> nn.Sequential:
    more = (_ResidualBlock(channels, channels, (1, 1, 1), projected=False) for _ in range(blocks - 1))
    return nn.Sequential(_ResidualBlock(input_channels, channels, stride, projected=True), *more)


def _repeated_voxels(channels: int, output_channels: int, stride: Sequence[int]) -> nn.Sequential:
    factors: Any = tuple(float(step) for step in stride)
    return nn.Sequential(nn.Upsample(scale_factor=factors), nn.Conv3d(channels, output_channels, 1))


def _convolution(
    input_channels: int, channels: int, stride: Sequence[int], *, nonlin: type[nn.Module] | None
) -> nn.Module:
    return ConvDropoutNormReLU(
        nn.Conv3d,
        input_channels,
        channels,
        3,
        list(stride),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nonlin,
        nonlin_kwargs={"negative_slope": _LEAK, "inplace": True},
    )
