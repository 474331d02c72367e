"""Spatial linear attention as two batched matrix products."""

import torch
from einops import rearrange


def spatial_linear_attention(qkv: torch.Tensor, *, heads: int) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.spatial_linear_attention`."""
    q, k, v = rearrange(qkv, "b (three head c) d h w -> three b d head c (h w)", three=3, head=heads)
    wide = torch.float32 if qkv.dtype.itemsize == 2 else qkv.dtype
    q = (q.to(wide).softmax(-2) * q.shape[-2] ** -0.5).to(qkv.dtype)
    k = k.to(wide).softmax(-1).to(qkv.dtype)
    context = k @ v.transpose(-1, -2)
    out = context.transpose(-1, -2) @ q
    return rearrange(out, "b d head c (h w) -> b (head c) d h w", h=qkv.shape[3])
