"""Whole attention blocks of the U-Net for inference: x + to_out(attention(to_qkv(layer_norm(x)))).

The norm is over the channels of every voxel, with a gain and no bias. What attends is `depth_attention`,
`spatial_linear_attention`, or softmax attention among the positions of a slice.
"""

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_floating, check_norm_eps, check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.implementation import needs_gradient, uses_triton
from nnunet_difftumor.kernels.reference import attention_blocks as reference


def depth_block(
    x: torch.Tensor,
    gain: torch.Tensor,
    *,
    to_qkv: torch.Tensor,
    to_out: torch.Tensor,
    bias: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """The block of `depth_attention`: every in-plane position attends over the slices of its own column.

    On CUDA two launches where no gradient is needed; otherwise the plain reference, which has gradients.

    Args:
        x: floating (b, c, d, h, w) of any strides.
        gain: (c,), of the norm.
        to_qkv: (3 * heads * head_dim, c); rows in the order q, k, v, each head by head. head_dim is even.
        to_out: (c, heads * head_dim).
        bias: (heads, d, d), for query slice i and key slice j; added to the logits.
        cos: (d, head_dim / 2), of the angles of the rotary embedding; float32 or better.
        sin: likewise.
        eps: added to the variance.

    Returns:
        (b, c, d, h, w), of the dtype of x; from the kernels channels-last in memory.

    Raises:
        InputError: for shapes that do not fit together, integer tensors or different devices; on CUDA also for float64,
            more slices or wider heads than the kernels take, a sample of 2^31 elements, or a GPU that is too old.
    """
    parameters = {"gain": gain, "to_qkv": to_qkv, "to_out": to_out, "bias": bias, "cos": cos, "sin": sin}
    _check_floating(x, parameters, eps)
    if bias.ndim != 3:
        raise InputError(f"bias: expected (heads, d, d), got {tuple(bias.shape)}")
    heads, depth = len(bias), x.shape[2]
    head_dim = _check_weights(x, gain, to_qkv, to_out, heads)
    check_shape("bias", bias, (heads, depth, depth))
    for name in ("cos", "sin"):
        check_shape(name, parameters[name], (depth, head_dim // 2))
    if not _by_kernels(x, parameters):
        return reference.depth_block(x, gain, to_qkv, to_out, bias, cos, sin, eps)
    from nnunet_difftumor.kernels.triton import attention_blocks as kernels

    kernels.check(x, heads=heads, head_dim=head_dim, tokens=depth)
    positions = (tensor.float().contiguous() for tensor in (bias, cos, sin))
    return kernels.depth_block(x, *_contiguous(gain, to_qkv, to_out), *positions, eps)


def linear_block(
    x: torch.Tensor,
    gain: torch.Tensor,
    *,
    to_qkv: torch.Tensor,
    to_out: torch.Tensor,
    out_bias: torch.Tensor,
    heads: int,
    eps: float,
) -> torch.Tensor:
    """The block of `spatial_linear_attention`, within each slice.

    On CUDA two launches where no gradient is needed; otherwise the plain reference, which has gradients.

    Args:
        x, gain, to_qkv, to_out, eps: as of `depth_block`; head_dim may be odd.
        out_bias: (c,), of the last projection.
        heads: number of heads.

    Returns:
        (b, c, d, h, w), of the dtype of x; from the kernels channels-last in memory.

    Raises:
        InputError: as of `depth_block`; there is no most of positions.
    """
    parameters = {"gain": gain, "to_qkv": to_qkv, "to_out": to_out, "out_bias": out_bias}
    _check_floating(x, parameters, eps)
    head_dim = _check_weights(x, gain, to_qkv, to_out, heads, even=False)
    check_shape("out_bias", out_bias, (x.shape[1],))
    if not _by_kernels(x, parameters):
        return reference.linear_block(x, gain, to_qkv, to_out, out_bias, heads, eps)
    from nnunet_difftumor.kernels.triton import attention_blocks as kernels

    kernels.check(x, heads=heads, head_dim=head_dim)
    return kernels.linear_block(x, *_contiguous(gain, to_qkv, to_out, out_bias), heads, eps)


def spatial_block(
    x: torch.Tensor, gain: torch.Tensor, *, to_qkv: torch.Tensor, to_out: torch.Tensor, heads: int, eps: float
) -> torch.Tensor:
    """The block of softmax attention among the positions of each slice, scaled by 1 / sqrt(head_dim).

    On CUDA two launches where no gradient is needed and a slice has at most 128 positions; otherwise
    PyTorch's own attention between two projections, which has gradients.

    Args:
        x, gain, to_qkv, to_out, eps: as of `depth_block`.
        heads: number of heads.

    Returns:
        (b, c, d, h, w), of the dtype of x; from the kernels channels-last in memory.

    Raises:
        InputError: as of `depth_block`.
    """
    parameters = {"gain": gain, "to_qkv": to_qkv, "to_out": to_out}
    _check_floating(x, parameters, eps)
    head_dim = _check_weights(x, gain, to_qkv, to_out, heads)
    if _by_kernels(x, parameters):
        from nnunet_difftumor.kernels.triton import attention_blocks as kernels

        if x.shape[3] * x.shape[4] <= kernels.MOST_TOKENS:
            kernels.check(x, heads=heads, head_dim=head_dim)
            return kernels.spatial_block(x, *_contiguous(gain, to_qkv, to_out), heads, eps)
    return reference.spatial_block(x, gain, to_qkv, to_out, heads, eps)


def _check_floating(x: torch.Tensor, parameters: dict[str, torch.Tensor], eps: float) -> None:
    check_volume("x", x)
    for name, tensor in parameters.items():
        check_floating(name, tensor, x)
    check_norm_eps(eps)


def _check_weights(
    x: torch.Tensor, gain: torch.Tensor, to_qkv: torch.Tensor, to_out: torch.Tensor, heads: int, *, even: bool = True
) -> int:
    """Checks shapes; channels of a head."""
    channels = x.shape[1]
    check_shape("gain", gain, (channels,))
    step = 6 if even else 3
    if to_qkv.ndim != 2 or heads < 1 or not len(to_qkv) or len(to_qkv) % (step * heads) or to_qkv.shape[1] != channels:
        raise InputError(
            f"to_qkv: expected (3 * {heads} heads * {'even ' if even else ''}head_dim, {channels}), got "
            f"{tuple(to_qkv.shape)}"
        )
    check_shape("to_out", to_out, (channels, len(to_qkv) // 3))
    return len(to_qkv) // (3 * heads)


def _by_kernels(x: torch.Tensor, parameters: dict[str, torch.Tensor]) -> bool:
    if not uses_triton("x", x) or needs_gradient(x, *parameters.values()):
        return False
    check_reach("x", x)
    return True


def _contiguous(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)
