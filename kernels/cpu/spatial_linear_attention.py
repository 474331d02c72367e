"""Spatial linear attention slice by slice: a slice's q, k and v stay in the cache, and nothing is copied to reorder it.

The softmax over positions is never made: its sum divides the small context instead.
"""

import torch
from einops import rearrange


def spatial_linear_attention(qkv: torch.Tensor, *, heads: int) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.spatial_linear_attention`; quickest on channels-last memory, read as it is."""
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
