"""Depth attention with matrix products; the logits of all columns are in memory together."""

import torch
from einops import rearrange


def depth_attention(qkv: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.depth_attention`."""
    angles = rotation_angles(frequencies, qkv.shape[2])
    return attend_along_depth(qkv, bias, angles.cos(), angles.sin())


def attend_along_depth(qkv: torch.Tensor, bias: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The same for cosines and sines (d, head_dim / 2) of all angles."""
    heads, height = bias.shape[0], qkv.shape[3]
    q, k, v = rearrange(qkv, "b (three head c) d h w -> three (b h w) head d c", three=3, head=heads)
    cos, sin = cos.to(qkv.dtype), sin.to(qkv.dtype)
    q = rotate(q, cos, sin) * q.shape[-1] ** -0.5
    logits = q @ rotate(k, cos, sin).transpose(-1, -2) + bias.to(qkv.dtype)
    attention = logits.float().softmax(-1) if logits.dtype.itemsize == 2 else logits.softmax(-1)
    out = attention.to(v.dtype) @ v
    return rearrange(out, "(b h w) head d c -> b (head c) d h w", b=qkv.shape[0], h=height)


def rotation_angles(frequencies: torch.Tensor, depth: int) -> torch.Tensor:
    """(depth, head_dim / 2), in radians, of frequencies (head_dim / 2,) in radians per slice.

    In their dtype, float32 or better: half precision cannot tell neighbouring slices apart at high frequencies.
    """
    positions = torch.arange(depth, device=frequencies.device, dtype=frequencies.dtype)
    return positions[:, None] * frequencies


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs of neighbouring channels of x (..., d, c) by angles whose cosines and sines are (d, c / 2)."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
