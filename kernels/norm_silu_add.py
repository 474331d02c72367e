"""The end of a residual block whose shortcut is no convolution: norm, SiLU and sum."""

import torch

from nnunet_difftumor.kernels.checks import check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.convolve import check_affine, check_like_x
from nnunet_difftumor.kernels.implementation import uses_triton
from nnunet_difftumor.kernels.moments import Affine
from nnunet_difftumor.kernels.reference import norm_silu_add as reference


def norm_silu_add(x: torch.Tensor, residual: torch.Tensor, *, norm: Affine) -> torch.Tensor:
    """silu(norm(x)) + residual, computed in float32 and rounded once; on CUDA one launch.

    Args:
        x: floating (b, c, d, h, w); on CUDA a copy is made unless it is channels-last in memory.
        residual: likewise, of the shape and dtype of x.
        norm: of x, scale and shift float32 (b, c) each (float64 with x in float64): `norm_of_moments` gives it.

    Returns:
        Of the shape and dtype of x, on CUDA channels-last.

    Raises:
        InputError: for shapes, dtypes or devices that do not fit together; on CUDA also for float64, a sample of 2^31
            elements, or a GPU that is too old.
    """
    check_volume("x", x)
    check_like_x("residual", residual, x)
    check_shape("residual", residual, tuple(x.shape))
    check_affine("norm", norm, (x.shape[0], x.shape[1]), x)
    if not uses_triton("x", x):
        return reference.norm_silu_add(x, residual, norm=norm)
    from nnunet_difftumor.kernels.triton import norm_silu_add as kernels

    x, residual = (tensor.contiguous(memory_format=torch.channels_last_3d) for tensor in (x, residual))
    check_reach("x", x)
    return kernels.norm_silu_add(x, residual, norm.scale.contiguous(), norm.shift.contiguous())
