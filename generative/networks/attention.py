"""Attention blocks of the diffusion U-Net, on (b, c, d, h, w): each is x + attention(norm(x))."""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from nnunet_difftumor.kernels import depth_attention, spatial_linear_attention
from nnunet_difftumor.kernels.implementation import is_cpu_inference

NORM_EPS = 1e-5
# Bytes of q, k and v that a CPU's cache holds beside what is made of them.
_PART_BYTES = 4 * 2**20


def rotary_frequencies(head_dim: int) -> torch.Tensor:
    """10000^(-2m / head_dim), m = 0 ... head_dim / 2 - 1, float32 (Su et al., 2021)."""
    return (10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)).float()


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

    def added(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        return x + self.to_out(attended.movedim(1, -1)).movedim(-1, 1)


class DepthAttention(_AttentionBlock):
    """Attention along depth; bias and frequencies are shared by all blocks of a network."""

    def __init__(self, channels: int, *, heads: int, head_dim: int):
        super().__init__(channels, heads=heads, head_dim=head_dim, out_bias=False)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
        return self.in_parts(
            x, lambda part: self.added(part, depth_attention(self.qkv(part), bias, frequencies)), axis=3
        )


class SpatialLinearAttention(_AttentionBlock):
    """Linear attention within each slice."""

    def __init__(self, channels: int, *, heads: int, head_dim: int):
        super().__init__(channels, heads=heads, head_dim=head_dim, out_bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.in_parts(
            x, lambda part: self.added(part, spatial_linear_attention(self.qkv(part), heads=self.heads)), axis=2
        )


class SpatialAttention(_AttentionBlock):
    """Full attention within each slice, for the coarsest level: a few positions only."""

    def __init__(self, channels: int, *, heads: int, head_dim: int):
        super().__init__(channels, heads=heads, head_dim=head_dim, out_bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = rearrange(self.qkv(x), "b (three head c) d h w -> three (b d) head (h w) c", three=3, head=self.heads)
        attended = functional.scaled_dot_product_attention(q, k, v)
        attended = rearrange(attended, "(b d) head (h w) c -> b (head c) d h w", b=x.shape[0], h=x.shape[3])
        return self.added(x, attended)
