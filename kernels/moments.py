"""Norms of channels-last volumes without gradients, from moments that are gathered piece by piece."""

from typing import NamedTuple

import torch


class Affine(NamedTuple):
    """A norm whose moments are known: x * scale + shift, each (c,), or (b, c) of a batch."""

    scale: torch.Tensor
    shift: torch.Tensor


class PartialMoments(NamedTuple):
    """Of every sample and channel of a volume, in pieces that need not have the same size.

    Attributes:
        counts: float32 (b, pieces), voxels of a piece.
        means: float32 (b, pieces, c).
        deviations: float32 (b, pieces, c), sums of squared differences to the piece's own mean.
    """

    counts: torch.Tensor
    means: torch.Tensor
    deviations: torch.Tensor


class Moments:
    """Mean and variance of every channel.

    torch's own norm of channels-last tensors loses digits on large volumes. Here sums of a piece are in the dtype of
    the volume, of differences to the first piece's mean, so that no digits cancel; over pieces they are float64.
    """

    def __init__(self, channels: int):
        self.count = 0
        self.origin = None
        self.sums = torch.zeros(2, channels, dtype=torch.float64)

    def add(self, piece: torch.Tensor) -> None:
        """(..., c)."""
        rows = piece.reshape(-1, piece.shape[-1])
        if self.origin is None:
            self.origin = rows.mean(0)
        rows = rows - self.origin
        self.count += len(rows)
        self.sums[0] += rows.sum(0)
        self.sums[1] += rows.square_().sum(0)

    def affine(self, weight: torch.Tensor, bias: torch.Tensor, *, groups: int, eps: float) -> Affine:
        """What a GroupNorm does to a volume with these moments."""
        differences, squares = self.sums.view(2, groups, -1) / self.count
        mean = self.origin.double().view(groups, -1) + differences
        # Of a group: the channels' variances, and that of their means.
        variance = (squares - differences.square()).mean(1, keepdim=True) + mean.var(1, correction=0, keepdim=True)
        scale = weight.double().view(groups, -1) / (variance + eps).sqrt()
        shift = bias.double().view(groups, -1) - mean.mean(1, keepdim=True) * scale
        return Affine(scale.flatten().to(self.origin.dtype), shift.flatten().to(self.origin.dtype))
