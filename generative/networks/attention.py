"""Attention blocks of the diffusion U-Net, on (b, c, d, h, w): each is x + attention(norm(x))."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from nnunet_difftumor.kernels import (
    depth_attention,
    depth_block,
    linear_block,
    spatial_block,
    spatial_linear_attention,
)
from nnunet_difftumor.kernels.implementation import is_cpu_inference, needs_gradient, uses_triton
from nnunet_difftumor.kernels.reference.attention_blocks import attend_within_slices
from nnunet_difftumor.kernels.reference.depth_attention import rotation_angles

NORM_EPS = 1e-5
# Bytes of q, k and v that a CPU's cache holds beside what is made of them.
_PART_BYTES = 4 * 2**20


def rotary_frequencies(head_dim: int) -> torch.Tensor:
    """10000^(-2m / head_dim), m = 0 ... head_dim / 2 - 1, float32 (Su et al., 2021)."""
    return (10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)).float()


class DepthPositions(NamedTuple):
    """What attention along depth knows of the positions of d slices; all blocks of a network share it.

    Attributes:
        bias: (heads, d, d), for query slice i and key slice j.
        frequencies: (head_dim / 2,), of the rotary embedding, in radians per slice.
        cos: float32 (d, head_dim / 2), of the angles by which slices are rotated.
        sin: likewise.
    """

    bias: torch.Tensor
    frequencies: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    def of(cls, bias: torch.Tensor, frequencies: torch.Tensor) -> "DepthPositions":
        """For as many slices as the bias is for."""
        # Contiguous, as the kernels take it: else each would copy it at every call.
        angles = rotation_angles(frequencies, bias.shape[1])
        return cls(bias.contiguous(), frequencies, angles.cos(), angles.sin())


class RelativePositionBias(nn.Module):
    """Learned bias (heads, d, d) by the distance of two slices (Raffel et al., JMLR 2020: T5).

    Half of the buckets are for keys behind the query; of each half one part has a bucket per distance, the rest widens
    logarithmically up to `max_distance`.
    """

    def __init__(self, heads: int, *, buckets: int = 32, max_distance: int = 32):
        super().__init__()
        self.max_distance = max_distance
        self.table = nn.Embedding(buckets, heads)

    def forward(self, depth: int) -> torch.Tensor:
        """For query slice i and key slice j of `depth` slices."""
        return self.table(self.buckets(depth)).permute(2, 0, 1)

    def buckets(self, depth: int) -> torch.Tensor:
        """int64 (depth, depth), for query i and key j."""
        positions = torch.arange(depth, device=self.table.weight.device)
        difference = positions[:, None] - positions
        half = self.table.num_embeddings // 2
        exact = half // 2
        distance = difference.abs()
        # A table of all distances, on the CPU in double precision: floor of a logarithm must not depend on the device.
        wide = [
            exact + math.floor(math.log(n / exact) / math.log(self.max_distance / exact) * (half - exact) + 1e-9)
            for n in range(exact, max(depth, exact + 1))
        ]
        by_distance = torch.tensor([*range(exact), *(min(half - 1, bucket) for bucket in wide)], device=distance.device)
        return by_distance[distance] + half * (difference < 0)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of every voxel, with a gain and no bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, d, h, w) to channels-last (b, d, h, w, c)."""
        return functional.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, None, NORM_EPS)


class _AttentionBlock(nn.Module):
    def __init__(self, channels: int, *, heads: int, head_dim: int, out_bias: bool):
        super().__init__()
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, channels, bias=out_bias)

    def qkv(self, x: torch.Tensor) -> torch.Tensor:
        """(b, 3 * heads * head_dim, d, h, w), channels-last in memory."""
        return self.to_qkv(self.norm(x)).movedim(-1, 1)

    def in_parts(self, x: torch.Tensor, attend: Callable[[torch.Tensor], torch.Tensor], *, axis: int) -> torch.Tensor:
        """attend(x); on a CPU, in inference, piece by piece along an axis, so that q, k and v stay in the cache."""
        if not is_cpu_inference(x):
            return attend(x)
        out = torch.empty_like(x)
        of_one = x[:, 0].numel() // x.shape[axis] * self.to_qkv.out_features * x.element_size()
        size = max(1, _PART_BYTES // of_one)
        for part, target in zip(x.split(size, axis), out.split(size, axis), strict=True):
            target.copy_(attend(part))
        return out

    def runs_as_kernels(self, x: torch.Tensor) -> bool:
        """Whether the whole block runs as kernels: those have no gradients, and one precision for all.

        Under autocast, as a training validates, each operation has the precision that it was trained with.
        """
        if not uses_triton("x", x) or torch.is_autocast_enabled(x.device.type):
            return False
        return not needs_gradient(x, *self.parameters())

    def block_weights(self) -> dict[str, torch.Tensor | float]:
        """What all blocks take by these names."""
        return {"to_qkv": self.to_qkv.weight, "to_out": self.to_out.weight, "eps": NORM_EPS}

    def added(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        return x + self.to_out(attended.movedim(1, -1)).movedim(-1, 1)


class DepthAttention(_AttentionBlock):
    """Attention along depth."""

    def __init__(self, channels: int, *, heads: int, head_dim: int):
        super().__init__(channels, heads=heads, head_dim=head_dim, out_bias=False)

    def forward(self, x: torch.Tensor, positions: DepthPositions) -> torch.Tensor:
        bias, frequencies, cos, sin = positions
        if self.runs_as_kernels(x) and not needs_gradient(bias):
            return depth_block(x, self.norm.weight, bias=bias, cos=cos, sin=sin, **self.block_weights())
        return self.in_parts(
            x, lambda part: self.added(part, depth_attention(self.qkv(part), bias, frequencies)), axis=3
        )


class SpatialLinearAttention(_AttentionBlock):
    """Linear attention within each slice."""

    def __init__(self, channels: int, *, heads: int, head_dim: int):
        super().__init__(channels, heads=heads, head_dim=head_dim, out_bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.runs_as_kernels(x):
            weights = self.block_weights()
            return linear_block(x, self.norm.weight, out_bias=self.to_out.bias, heads=self.heads, **weights)
        return self.in_parts(
            x, lambda part: self.added(part, spatial_linear_attention(self.qkv(part), heads=self.heads)), axis=2
        )


class SpatialAttention(_AttentionBlock):
    """Full attention within each slice, for the coarsest level: a few positions only."""

    def __init__(self, channels: int, *, heads: int, head_dim: int):
        super().__init__(channels, heads=heads, head_dim=head_dim, out_bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.runs_as_kernels(x):
            return spatial_block(x, self.norm.weight, heads=self.heads, **self.block_weights())
        return self.added(x, attend_within_slices(self.qkv(x), heads=self.heads))
