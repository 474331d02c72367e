"""Depth attention with little memory traffic: one copy of q, k and v, in which the rotation is written where the
products read it, as that of complex numbers; scale and bias are added to the logits in place.
"""

import torch
from einops import rearrange

from nnunet_difftumor.kernels.reference.depth_attention import rotation_angles


def depth_attention(qkv: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.depth_attention`; float32 inside also for half precision."""
    batch, _, depth, height, width = qkv.shape
    angles = rotation_angles(frequencies, depth)
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
