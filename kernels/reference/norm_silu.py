"""Norm, SiLU and sum, one after the other."""

import torch

from nnunet_difftumor.kernels.moments import Affine
from nnunet_difftumor.kernels.reference.convolve import activated


def norm_silu(x: torch.Tensor, *, norm: Affine, residual: torch.Tensor | None) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.norm_silu`."""
    y = activated(x, norm)
    return (y if residual is None else y + residual.to(y.dtype)).to(x.dtype)
