"""A convolution with what stands around it: norm and SiLU, rim, bias, residual, and the moments for the next norm."""

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_floating, check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.convolution_weight import ConvolutionWeight
from nnunet_difftumor.kernels.implementation import uses_triton
from nnunet_difftumor.kernels.moments import Affine, PartialMoments
from nnunet_difftumor.kernels.reference import convolve as reference
from nnunet_difftumor.kernels.reference.norm_of_moments import moments_of


def convolve(
    x: torch.Tensor,
    weight: ConvolutionWeight,
    *,
    bias: torch.Tensor,
    skip: torch.Tensor | None = None,
    norm: Affine | None = None,
    residual: torch.Tensor | None = None,
    residual_norm: Affine | None = None,
    moments: bool = False,
    dtype: torch.dtype | None = None,
) -> torch.Tensor | tuple[torch.Tensor, PartialMoments]:
    """The convolution of silu(norm(x)), or of x, plus a residual; computed in float32 and rounded once, at the store.

    What is multiplied is rounded to the dtype of the weight before. On CUDA it is one launch, which writes nothing but
    the output. Gradients go through torch's own convolution, of the normalized and padded input computed again.

    Args:
        x: floating (b, c, d, h, w); on CUDA a copy is made unless it is channels-last in memory.
        weight: by `pack_convolution`, floating; of float64 if x is.
        bias: floating (n,).
        skip: floating (b, c', d, h, w), concatenated to x; without a norm.
        norm: of x, scale and shift float32 (b, c) each (float64 with x in float64): `norm_of_moments` gives it.
        residual: floating, of the output's shape.
        residual_norm: likewise; then silu(residual_norm(residual)) is added.
        moments: whether to return what the norm of the output needs; without gradients only.
        dtype: of the output; None: of the weight.

    Returns:
        (b, n, d', h', w'), on CUDA channels-last; with `moments` also those, of the values as they are stored.

    Raises:
        InputError: for shapes, dtypes or devices that do not fit together, an input smaller than the stride, or
            moments where gradients are wanted; on CUDA also for float64, a sample of 2^31 elements, or a GPU that is
            too old.
    """
    check_volume("x", x)
    check_as_precise("weight", weight.weight, x)
    _check_input(x, weight, skip=skip)
    if skip is not None and norm is not None:
        raise InputError("skip, norm: give one of them; a norm acts on all channels that are convolved")
    if residual is None and residual_norm is not None:
        raise InputError("residual_norm: there is no residual")
    size = weight.size_out(x.shape[2:])
    if not all(size):
        raise InputError(f"x: of size {tuple(x.shape[2:])} nothing is left with strides {weight.stride}")
    out_shape = (len(x), weight.channels_out, *size)
    dtype = weight.weight.dtype if dtype is None else dtype
    if not dtype.is_floating_point or (dtype == torch.float64) != (x.dtype == torch.float64):
        raise InputError(f"dtype: expected a floating one, and float64 only with x in float64, got {dtype}")
    check_floating("bias", bias, x)
    check_shape("bias", bias, (weight.channels_out,))
    if residual is not None:
        check_as_precise("residual", residual, x)
        check_shape("residual", residual, out_shape)
    for name, affine, channels in (("norm", norm, x.shape[1]), ("residual_norm", residual_norm, weight.channels_out)):
        if affine is not None:
            check_affine(name, affine, (len(x), channels), x)
    given = (x, skip, weight.weight, bias, *(norm or ()), residual, *(residual_norm or ()))
    if moments and torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given):
        raise InputError("moments: have no gradients; take torch.inference_mode() or torch.no_grad()")
    if uses_triton("x", x):
        return _by_triton(x, weight, out_shape, bias, skip, norm, residual, residual_norm, moments, dtype)
    y = reference.convolve(x, weight, bias=bias, skip=skip, norm=norm, residual=residual, residual_norm=residual_norm)
    y = y.to(dtype)
    return (y, moments_of(y)) if moments else y


def check_affine(name: str, affine: Affine, shape: tuple[int, int], x: torch.Tensor) -> None:
    """Scale and shift as the operations take them."""
    for part, tensor in zip(("scale", "shift"), affine, strict=True):
        check_floating(f"{name}, {part}", tensor, x)
        check_shape(f"{name}, {part}", tensor, shape)
        wide = torch.promote_types(x.dtype, torch.float32)
        if tensor.dtype != wide:
            raise InputError(f"{name}, {part}: expected {wide}, got {tensor.dtype}")


def _check_input(x: torch.Tensor, weight: ConvolutionWeight, *, skip: torch.Tensor | None) -> None:
    inputs = (x,) if skip is None else (x, skip)
    if len(inputs) != len(weight.channels):
        raise InputError(
            f"skip: the weight is packed for inputs of {weight.channels} channels, got {len(inputs)} inputs"
        )
    for name, tensor, channels in zip(("x", "skip"), inputs, weight.channels, strict=False):
        if tensor.ndim != 5 or tensor.shape[1] != channels:
            raise InputError(f"{name}: expected {channels} channels, as the weight has, got {tuple(tensor.shape)}")
    if skip is not None:
        check_as_precise("skip", skip, x)
        check_shape("skip", skip, (len(x), weight.channels[1], *x.shape[2:]))


def check_as_precise(name: str, tensor: torch.Tensor, x: torch.Tensor) -> None:
    """A floating tensor of the device of x; both are float64, or neither."""
    check_floating(name, tensor, x)
    if (tensor.dtype == torch.float64) != (x.dtype == torch.float64):
        raise InputError(f"{name}: is {tensor.dtype}, x is {x.dtype}; convert one of them")


def check_like_x(name: str, tensor: torch.Tensor, x: torch.Tensor) -> None:
    """A tensor of the device and dtype of x."""
    check_floating(name, tensor, x)
    if tensor.dtype != x.dtype:
        raise InputError(f"{name}: is {tensor.dtype}, x is {x.dtype}; convert one of them")


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """As the kernels take it; a copy if it is not."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def _by_triton(
    x: torch.Tensor,
    weight: ConvolutionWeight,
    out_shape: tuple[int, ...],
    bias: torch.Tensor,
    skip: torch.Tensor | None,
    norm: Affine | None,
    residual: torch.Tensor | None,
    residual_norm: Affine | None,
    moments: bool,
    dtype: torch.dtype,
) -> torch.Tensor | tuple[torch.Tensor, PartialMoments]:
    from nnunet_difftumor.kernels.triton import convolve as kernels

    x = channels_last(x)
    check_reach("x", x)
    if skip is not None:
        skip = channels_last(skip)
        check_reach("skip", skip)
    if residual is not None:
        residual = channels_last(residual)
    kernels.check(out_shape)
    affines = [
        part if part is None else part.contiguous()
        for affine in (norm, residual_norm)
        for part in (affine or (None, None))
    ]
    y, *partial = kernels.convolve(
        *(x, skip, weight.weight, weight.packed, bias.contiguous(), *affines[:2], residual, *affines[2:]),
        *(weight.stride, weight.transposed, weight.zero_rim, moments, dtype),
    )
    return (y, PartialMoments(*partial)) if moments else y
