"""Depth attention with matrix products; the logits of all columns are in memory together."""

import torch
from einops import rearrange

from nnunet_difftumor.kernels.implementation import without_gradients


def depth_attention(qkv: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.depth_attention`."""
    heads, height = bias.shape[0], qkv.shape[3]
    # Angles in float32 or better: half precision cannot tell neighbouring slices apart at high frequencies.
    positions = torch.arange(qkv.shape[2], device=qkv.device, dtype=frequencies.dtype)
    angles = positions[:, None] * frequencies
    if without_gradients(qkv):
        return _with_little_traffic(qkv, bias, angles)
    q, k, v = rearrange(qkv, "b (three head c) d h w -> three (b h w) head d c", three=3, head=heads)
    cos, sin = angles.cos().to(qkv.dtype), angles.sin().to(qkv.dtype)
    q = _rotate(q, cos, sin) * q.shape[-1] ** -0.5
    logits = q @ _rotate(k, cos, sin).transpose(-1, -2) + bias.to(qkv.dtype)
    attention = logits.float().softmax(-1) if logits.dtype.itemsize == 2 else logits.softmax(-1)
    out = attention.to(v.dtype) @ v
    return rearrange(out, "(b h w) head d c -> b (head c) d h w", b=qkv.shape[0], h=height)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def _with_little_traffic(qkv: torch.Tensor, bias: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The same: pairs of channels are complex numbers, whose rotation is written where the products read it."""
    batch, _, _, height, width = qkv.shape
    wide = torch.promote_types(qkv.dtype, torch.float32)
    split = rearrange(
        qkv.movedim(1, -1).to(wide).contiguous(),
        "b d h w (three head c) -> three b h w head d c",
        three=3,
        head=len(bias),
    )
    rotated = torch.empty(split.shape, dtype=wide, device=qkv.device)
    pairs = [torch.view_as_complex(part[:2].unflatten(-1, (-1, 2))) for part in (split, rotated)]
    torch.mul(pairs[0], torch.polar(torch.ones_like(angles), angles).to(pairs[0].dtype), out=pairs[1])
    rotated[2] = split[2]
    q, k, v = rotated.flatten(1, 4)
    logits = torch.bmm(q, k.transpose(1, 2)).mul_(q.shape[-1] ** -0.5).view(-1, *bias.shape).add_(bias)
    out = torch.bmm(logits.softmax(-1).flatten(0, 1), v).to(qkv.dtype)
    return rearrange(out, "(b h w head) d c -> b (head c) d h w", b=batch, h=height, w=width)
