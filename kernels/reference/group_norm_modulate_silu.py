"""GroupNorm, modulation, SiLU and replicate padding, one after the other."""

from collections.abc import Sequence

import torch
from torch.nn import functional


def group_norm_modulate_silu(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor,
    groups: int,
    eps: float,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    replicate: Sequence[int] | None,
) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.group_norm_modulate_silu`."""
    wide = torch.float32 if x.dtype.itemsize == 2 else x.dtype
    # Contiguous: on CPU, torch's GroupNorm of channels-last tensors loses digits on large volumes.
    y = functional.group_norm(x.to(wide).contiguous(), groups, weight.to(wide), bias.to(wide), eps)
    if scale is not None:
        y = y * (1 + scale.to(wide))[:, :, None, None, None] + shift.to(wide)[:, :, None, None, None]
    y = functional.silu(y).to(x.dtype)
    return y if replicate is None else functional.pad(y, tuple(replicate), mode="replicate")
