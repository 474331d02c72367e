"""Norm, SiLU, rim, torch's own convolution and what is added, one after the other."""

import torch
from torch.nn import functional

from nnunet_difftumor.kernels.convolution_weight import ConvolutionWeight
from nnunet_difftumor.kernels.moments import Affine


def convolve(
    x: torch.Tensor,
    weight: ConvolutionWeight,
    *,
    bias: torch.Tensor,
    skip: torch.Tensor | None,
    norm: Affine | None,
    residual: torch.Tensor | None,
    residual_norm: Affine | None,
) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.convolve`; float32 or better, not rounded yet."""
    wide = torch.promote_types(x.dtype, torch.float32)
    padded = padded_input(x, skip, norm, weight).to(wide)
    factors, stride = weight.weight.to(wide), weight.stride
    if weight.transposed:
        cut = [k - 1 for k in factors.shape[2:]]
        y = functional.conv_transpose3d(padded, factors, bias.to(wide), stride=stride, padding=cut)
    else:
        y = functional.conv3d(padded, factors, bias.to(wide), stride=stride)
    if residual is not None:
        y = y + (residual.to(wide) if residual_norm is None else activated(residual, residual_norm))
    return y


def padded_input(
    x: torch.Tensor, skip: torch.Tensor | None, norm: Affine | None, weight: ConvolutionWeight
) -> torch.Tensor:
    """What torch's convolution takes, in the dtype of the weight."""
    dtype = weight.weight.dtype
    x = (x if norm is None else activated(x, norm)).to(dtype)
    if skip is not None:
        x = torch.cat((x, skip.to(dtype)), dim=1)
    return functional.pad(x, weight.padding, mode="constant" if weight.zero_rim else "replicate")


def activated(x: torch.Tensor, norm: Affine) -> torch.Tensor:
    """silu(norm(x)), float32 or better."""
    return functional.silu(affine(x, norm))


def affine(x: torch.Tensor, norm: Affine) -> torch.Tensor:
    """x * scale + shift of every sample and channel, float32 or better."""
    scale, shift = (part[:, :, None, None, None] for part in norm)
    return x.to(torch.promote_types(x.dtype, torch.float32)) * scale + shift
