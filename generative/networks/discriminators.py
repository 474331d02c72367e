"""PatchGAN discriminators (Isola et al., CVPR 2017) of slices and of volumes."""

from typing import NamedTuple

import torch
from torch import nn

from nnunet_difftumor.errors import InputError

KERNEL, PADDING, SLOPE = 4, 2, 0.2


class Judgement(NamedTuple):
    """One logit per patch, (b, 1, ...), and the features of the layers before, for feature matching."""

    logits: torch.Tensor
    features: list[torch.Tensor]


class PatchDiscriminator(nn.Module):
    """Convolutions of stride 2, then two of stride 1; batch norm from the second layer on.

    Args:
        dimensions: 2 for slices (b, c, h, w), 3 for volumes (b, c, d, h, w). Any size of at least one pixel.
        channels: of the input.
        hidden_channels: of the first layer; they double up to eight times as many.
        layers: number of layers of stride 2.
    """

    def __init__(self, dimensions: int, *, channels: int = 1, hidden_channels: int = 64, layers: int = 3):
        super().__init__()
        if dimensions not in (2, 3):
            raise InputError(f"dimensions: expected 2 or 3, got {dimensions}")
        self.dimensions, self.channels = dimensions, channels
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d
        widths = [channels, *(hidden_channels * min(2**layer, 8) for layer in range(layers + 1))]
        self.layers = nn.ModuleList()
        for layer in range(layers + 1):
            stride = 1 if layer == layers else 2
            parts = [convolution(widths[layer], widths[layer + 1], KERNEL, stride=stride, padding=PADDING)]
            if layer:
                parts.append(norm(widths[layer + 1]))
            self.layers.append(nn.Sequential(*parts, nn.LeakyReLU(SLOPE)))
        self.last = convolution(widths[-1], 1, KERNEL, stride=1, padding=PADDING)

    def forward(self, x: torch.Tensor) -> Judgement:
        """Logits and features of each layer but the last."""
        if x.ndim != 2 + self.dimensions or x.shape[1] != self.channels:
            raise InputError(
                f"discriminator: expected (b, {self.channels}) and {self.dimensions} axes of space, got "
                f"{tuple(x.shape)}"
            )
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return Judgement(self.last(x), features)
