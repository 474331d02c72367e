"""GroupNorm, modulation and SiLU of channels-last memory in one pass after the moments, where the reference makes five.

Nothing is reordered, and the norm keeps its digits, which torch's own of channels-last tensors loses.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from nnunet_difftumor.kernels.moments import Moments


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
    """See `nnunet_difftumor.kernels.group_norm_modulate_silu`; x is channels-last in memory."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    y = torch.empty_like(wide)
    for sample, (source, target) in enumerate(zip(wide.movedim(1, -1), y.movedim(1, -1), strict=True)):
        moments = Moments(x.shape[1])
        moments.add(source)
        norm = moments.affine(weight, bias, groups=groups, eps=eps)
        if scale is not None:
            gain = 1 + scale[sample].to(wide.dtype)
            norm = norm._replace(scale=norm.scale * gain, shift=norm.shift * gain + shift[sample].to(wide.dtype))
        functional.silu(torch.addcmul(norm.shift, source, norm.scale, out=target), inplace=True)
    y = y.to(x.dtype)
    return y if replicate is None else functional.pad(y, tuple(replicate), mode="replicate")
