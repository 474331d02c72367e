"""A norm whose moments are known: what it does to a volume; and doing it, where no convolution takes it over."""

import math

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_floating, check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.convolve import channels_last, check_affine, check_like_x
from nnunet_difftumor.kernels.implementation import uses_triton
from nnunet_difftumor.kernels.moments import Affine, PartialMoments
from nnunet_difftumor.kernels.reference import norm_of_moments as reference_of_moments
from nnunet_difftumor.kernels.reference import norm_silu as reference_silu


def norm_of_moments(
    moments: PartialMoments,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor,
    groups: int,
    eps: float,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
) -> Affine:
    """group_norm(x) * (1 + scale) + shift as x * Affine.scale + Affine.shift, for `convolve`.

    One launch, without gradients on CUDA. Pieces are joined without a difference of large sums (Chan et al., 1983).

    Args:
        moments: of x, by `convolve`.
        weight: (c,), of the norm.
        bias: (c,), of the norm.
        groups: number of groups; divides c.
        eps: added to the variance.
        scale: (b, c); both or neither of scale and shift.
        shift: (b, c).

    Returns:
        float32 (b, c) each.

    Raises:
        InputError: for shapes that do not fit together, integer tensors or different devices; on CUDA also for float64,
            gradients, or a GPU that is too old.
    """
    means = moments.means
    check_floating("moments", means)
    if means.ndim != 3 or means.numel() == 0:
        raise InputError(f"moments: expected means (b, pieces, c), got {tuple(means.shape)}")
    batch, pieces, channels = means.shape
    check_shape("moments, counts", moments.counts, (batch, pieces))
    check_shape("moments, deviations", moments.deviations, (batch, pieces, channels))
    if groups < 1 or channels % groups:
        raise InputError(f"groups: {groups} do not divide {channels} channels")
    if not 0 <= eps < math.inf:
        raise InputError(f"eps: expected a number from 0 on, got {eps}")
    if (scale is None) != (shift is None):
        raise InputError("scale, shift: give both or neither")
    for name, tensor, shape in (
        ("weight", weight, (channels,)),
        ("bias", bias, (channels,)),
        ("scale", scale, (batch, channels)),
        ("shift", shift, (batch, channels)),
    ):
        if tensor is not None:
            check_floating(name, tensor, means)
            check_shape(name, tensor, shape)
    if not uses_triton("moments", means):
        return reference_of_moments.norm_of_moments(
            moments, weight, bias=bias, groups=groups, eps=eps, scale=scale, shift=shift
        )
    from nnunet_difftumor.kernels.triton import norm_of_moments as kernels

    parameters = [None if given is None else given.contiguous() for given in (weight, bias, scale, shift)]
    if torch.is_grad_enabled() and any(given is not None and given.requires_grad for given in parameters):
        raise InputError("weight, bias, scale, shift: have no gradients here; take torch.inference_mode()")
    return Affine(*kernels.norm_of_moments(*moments, *parameters, groups, eps))


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
        return reference_silu.norm_silu(x, norm=norm, residual=residual)
    from nnunet_difftumor.kernels.triton import norm_silu as kernels

    x = channels_last(x)
    check_reach("x", x)
    if residual is not None:
        residual = channels_last(residual)
    return kernels.norm_silu(x, norm.scale.contiguous(), norm.shift.contiguous(), residual)
