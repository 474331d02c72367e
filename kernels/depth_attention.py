"""Attention along depth with rotary embedding (Su et al., 2021) and a relative position bias."""

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_floating, check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.cpu import depth_attention as cpu
from nnunet_difftumor.kernels.implementation import is_cpu_inference, uses_triton
from nnunet_difftumor.kernels.reference import depth_attention as reference


def depth_attention(qkv: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Every in-plane position attends over the slices of its own column.

    softmax_j(rotate(q_i) . rotate(k_j) / sqrt(head_dim) + bias[head, i, j]) v_j; the pair (2m, 2m + 1) of channels of q
    and k at slice i is rotated by the angle i * frequencies[m].

    Args:
        qkv: floating (b, 3 * heads * head_dim, d, h, w) of any strides; channels in the order q, k, v, each head by
            head.
        bias: (heads, d, d), for query slice i and key slice j.
        frequencies: (head_dim / 2,), in radians per slice.

    Returns:
        (b, heads * head_dim, d, h, w), of the dtype of qkv.

    Raises:
        InputError: for shapes that do not fit together, integer tensors or different devices; on CUDA also for float64,
            more slices or channels than the kernel takes, a sample of 2^31 elements, or a GPU that is too old.
    """
    check_volume("qkv", qkv)
    check_floating("bias", bias, qkv)
    check_floating("frequencies", frequencies, qkv)
    depth = qkv.shape[2]
    if bias.ndim != 3 or frequencies.ndim != 1:
        raise InputError(
            f"bias: expected (heads, d, d), and frequencies: (head_dim / 2,); got {tuple(bias.shape)} and "
            f"{tuple(frequencies.shape)}"
        )
    check_shape("bias", bias, (bias.shape[0], depth, depth))
    if qkv.shape[1] != 3 * bias.shape[0] * 2 * len(frequencies):
        raise InputError(
            f"qkv: expected 3 * {bias.shape[0]} heads * {2 * len(frequencies)} channels (as bias and frequencies say), "
            f"got {qkv.shape[1]}"
        )
    if uses_triton("qkv", qkv):
        return _by_triton(qkv, bias, frequencies)
    form = cpu if is_cpu_inference(qkv) else reference
    return form.depth_attention(qkv, bias, frequencies)


def _by_triton(qkv: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    from nnunet_difftumor.kernels.triton import depth_attention as kernels

    check_reach("qkv", qkv)
    kernels.check(qkv, bias)
    return kernels.depth_attention(qkv, bias.float().contiguous(), *kernels.rotation(frequencies, qkv.shape[2]))
