"""GroupNorm, modulation, SiLU and replicate padding, one after the other."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from nnunet_difftumor.kernels.implementation import without_gradients
from nnunet_difftumor.kernels.reference.moments import Moments


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
    if without_gradients(x) and x.is_contiguous(memory_format=torch.channels_last_3d):
        y = _channels_last(x.to(wide), weight, bias, groups, eps, scale, shift)
    else:
        # Contiguous: on CPU, torch's GroupNorm of channels-last tensors loses digits on large volumes.
        y = functional.group_norm(x.to(wide).contiguous(), groups, weight.to(wide), bias.to(wide), eps)
        if scale is not None:
            y = y * (1 + scale.to(wide))[:, :, None, None, None] + shift.to(wide)[:, :, None, None, None]
        y = functional.silu(y)
    y = y.to(x.dtype)
    return y if replicate is None else functional.pad(y, tuple(replicate), mode="replicate")


def _channels_last(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    eps: float,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
) -> torch.Tensor:
    """All but the padding, as one pass after the moments."""
    y = torch.empty_like(x)
    for sample, (source, target) in enumerate(zip(x.movedim(1, -1), y.movedim(1, -1), strict=True)):
        moments = Moments(x.shape[1])
        moments.add(source)
        norm = moments.affine(weight, bias, groups=groups, eps=eps)
        if scale is not None:
            gain = 1 + scale[sample].to(x.dtype)
            norm = norm._replace(scale=norm.scale * gain, shift=norm.shift * gain + shift[sample].to(x.dtype))
        functional.silu(torch.addcmul(norm.shift, source, norm.scale, out=target), inplace=True)
    return y
