"""Attention blocks as one operation after the other."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch.nn import functional

from nnunet_difftumor.kernels.reference.depth_attention import attend_along_depth
from nnunet_difftumor.kernels.reference.spatial_linear_attention import spatial_linear_attention

Attend = Callable[[torch.Tensor], torch.Tensor]


def depth_block(
    x: torch.Tensor,
    gain: torch.Tensor,
    to_qkv: torch.Tensor,
    to_out: torch.Tensor,
    bias: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.depth_block`."""
    return _block(x, gain, to_qkv, to_out, None, eps, lambda qkv: attend_along_depth(qkv, bias, cos, sin))


def linear_block(
    x: torch.Tensor,
    gain: torch.Tensor,
    to_qkv: torch.Tensor,
    to_out: torch.Tensor,
    out_bias: torch.Tensor,
    heads: int,
    eps: float,
) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.linear_block`."""
    return _block(x, gain, to_qkv, to_out, out_bias, eps, lambda qkv: spatial_linear_attention(qkv, heads=heads))


def spatial_block(
    x: torch.Tensor, gain: torch.Tensor, to_qkv: torch.Tensor, to_out: torch.Tensor, heads: int, eps: float
) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.spatial_block`."""
    return _block(x, gain, to_qkv, to_out, None, eps, lambda qkv: attend_within_slices(qkv, heads=heads))


def attend_within_slices(qkv: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Softmax attention among the positions of each slice.

    Args:
        qkv: floating (b, 3 * heads * head_dim, d, h, w); channels in the order q, k, v, each head by head.
        heads: number of heads.

    Returns:
        (b, heads * head_dim, d, h, w).
    """
    q, k, v = rearrange(qkv, "b (three head c) d h w -> three (b d) head (h w) c", three=3, head=heads)
    attended = functional.scaled_dot_product_attention(q, k, v)
    return rearrange(attended, "(b d) head (h w) c -> b (head c) d h w", b=qkv.shape[0], h=qkv.shape[3])


def _block(
    x: torch.Tensor,
    gain: torch.Tensor,
    to_qkv: torch.Tensor,
    to_out: torch.Tensor,
    out_bias: torch.Tensor | None,
    eps: float,
    attend: Attend,
) -> torch.Tensor:
    gain, to_qkv, to_out = (parameter.to(x.dtype) for parameter in (gain, to_qkv, to_out))
    out_bias = None if out_bias is None else out_bias.to(x.dtype)
    normed = functional.layer_norm(x.movedim(1, -1), gain.shape, gain, None, eps)
    attended = attend(functional.linear(normed, to_qkv).movedim(-1, 1))
    return x + functional.linear(attended.movedim(1, -1), to_out, out_bias).movedim(-1, 1)
