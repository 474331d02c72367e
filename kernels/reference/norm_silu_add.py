"""Norm, SiLU and sum, one after the other."""

import torch

from nnunet_difftumor.kernels.moments import Affine
from nnunet_difftumor.kernels.reference.convolve import activated


def norm_silu_add(x: torch.Tensor, residual: torch.Tensor, *, norm: Affine) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.norm_silu_add`."""
    y = activated(x, norm)
    return (y + residual.to(y.dtype)).to(x.dtype)
