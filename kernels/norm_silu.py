"""A norm whose moments are known, SiLU, and perhaps a sum: what stands where no convolution can take them over."""

import torch

from nnunet_difftumor.kernels.checks import check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.convolve import channels_last, check_affine, check_like_x
from nnunet_difftumor.kernels.implementation import uses_triton
from nnunet_difftumor.kernels.moments import Affine
from nnunet_difftumor.kernels.reference import norm_silu as reference


def norm_silu(x: torch.Tensor, *, norm: Affine, residual: torch.Tensor | None = None) -> torch.Tensor:
    """silu(norm(x)), plus a residual; computed in float32 and rounded once, on CUDA by one launch.

    Args:
        x: floating (b, c, d, h, w); on CUDA a copy is made unless it is channels-last in memory.
        norm: of x, scale and shift float32 (b, c) each (float64 with x in float64): `norm_of_moments` gives it.
        residual: like x, of its shape and dtype.

    Returns:
        Of the shape and dtype of x, on CUDA channels-last.

    Raises:
        InputError: for shapes, dtypes or devices that do not fit together; on CUDA also for float64, a sample of 2^31
            elements, or a GPU that is too old.
    """
    check_volume("x", x)
    if residual is not None:
        check_like_x("residual", residual, x)
        check_shape("residual", residual, tuple(x.shape))
    check_affine("norm", norm, (x.shape[0], x.shape[1]), x)
    if not uses_triton("x", x):
        return reference.norm_silu(x, norm=norm, residual=residual)
    from nnunet_difftumor.kernels.triton import norm_silu as kernels

    x = channels_last(x)
    check_reach("x", x)
    if residual is not None:
        residual = channels_last(residual)
    return kernels.norm_silu(x, norm.scale.contiguous(), norm.shift.contiguous(), residual)
