"""Depth attention with matrix products; the logits of all columns are in memory together."""

import torch
from einops import rearrange


def depth_attention(qkv: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.depth_attention`."""
    heads, height = bias.shape[0], qkv.shape[3]
    q, k, v = rearrange(qkv, "b (three head c) d h w -> three (b h w) head d c", three=3, head=heads)
    # Angles in float32 or better: half precision cannot tell neighbouring slices apart at high frequencies.
    positions = torch.arange(qkv.shape[2], device=qkv.device, dtype=frequencies.dtype)
    angles = positions[:, None] * frequencies
    cos, sin = angles.cos().to(qkv.dtype), angles.sin().to(qkv.dtype)
    q = _rotate(q, cos, sin) * q.shape[-1] ** -0.5
    logits = q @ _rotate(k, cos, sin).transpose(-1, -2) + bias.to(qkv.dtype)
    attention = logits.float().softmax(-1) if logits.dtype.itemsize == 2 else logits.softmax(-1)
    out = attention.to(v.dtype) @ v
    return rearrange(out, "(b h w) head d c -> b (head c) d h w", b=qkv.shape[0], h=height)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
