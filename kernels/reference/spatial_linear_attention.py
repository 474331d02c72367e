"""Spatial linear attention as two batched matrix products."""

import torch
from einops import rearrange

from nnunet_difftumor.kernels.implementation import without_gradients


def spatial_linear_attention(qkv: torch.Tensor, *, heads: int) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.spatial_linear_attention`."""
    height = qkv.shape[3]
    if without_gradients(qkv):
        return _slice_by_slice(qkv, heads)
    q, k, v = rearrange(qkv, "b (three head c) d h w -> three b d head c (h w)", three=3, head=heads)
    wide = torch.float32 if qkv.dtype.itemsize == 2 else qkv.dtype
    q = (q.to(wide).softmax(-2) * q.shape[-2] ** -0.5).to(qkv.dtype)
    k = k.to(wide).softmax(-1).to(qkv.dtype)
    context = k @ v.transpose(-1, -2)
    out = context.transpose(-1, -2) @ q
    return rearrange(out, "b d head c (h w) -> b (head c) d h w", h=height)


def _slice_by_slice(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """The same on channels-last memory as it is; the softmax over positions is divided by its sum at the end."""
    batch, height = qkv.shape[0], qkv.shape[3]
    wide = torch.promote_types(qkv.dtype, torch.float32)
    rows = qkv.movedim(1, -1).to(wide).contiguous()
    q, k, v = rearrange(rows, "b d h w (three head c) -> three (b d) (h w) head c", three=3, head=heads)
    q = q.softmax(-1)
    k = (k - k.amax(1, keepdim=True)).exp_()
    norms = k.sum(1).mul_(q.shape[-1] ** 0.5).unsqueeze(-1)
    out = torch.empty(q.shape, dtype=wide, device=qkv.device)
    for i in range(len(q)):
        context = torch.bmm(k[i].permute(1, 2, 0), v[i].transpose(0, 1)).div_(norms[i])
        out[i] = torch.bmm(q[i].transpose(0, 1), context).transpose(0, 1)
    return rearrange(out, "(b d) (h w) head c -> b (head c) d h w", b=batch, h=height).to(qkv.dtype)
