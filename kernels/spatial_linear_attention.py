"""Linear attention over the positions of a slice (Shen et al., WACV 2021: efficient attention)."""

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_reach, check_volume
from nnunet_difftumor.kernels.cpu import spatial_linear_attention as cpu
from nnunet_difftumor.kernels.implementation import is_cpu_inference, uses_triton
from nnunet_difftumor.kernels.reference import spatial_linear_attention as reference


def spatial_linear_attention(qkv: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Within each slice, with q a softmax over a head's channels, and k over the slice's positions.

    context = k v^T over positions; out = context^T q / sqrt(head_dim). The cost is linear in the positions.

    Args:
        qkv: floating (b, 3 * heads * head_dim, d, h, w) of any strides; channels in the order q, k, v, each head by
            head.
        heads: number of heads.

    Returns:
        (b, heads * head_dim, d, h, w), of the dtype of qkv.

    Raises:
        InputError: for another number of axes, an empty axis, an integer tensor, or channels that the heads do not
            divide; on CUDA also for float64, wider heads than the kernel takes, a sample of 2^31 elements, or a GPU
            that is too old.
    """
    check_volume("qkv", qkv)
    if heads < 1 or qkv.shape[1] % (3 * heads):
        raise InputError(f"qkv: its {qkv.shape[1]} channels are not 3 * {heads} heads * head_dim")
    if uses_triton("qkv", qkv):
        return _by_triton(qkv, heads)
    form = cpu if is_cpu_inference(qkv) else reference
    return form.spatial_linear_attention(qkv, heads=heads)


def _by_triton(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    from nnunet_difftumor.kernels.triton import spatial_linear_attention as kernels

    check_reach("qkv", qkv)
    kernels.check(qkv, heads)
    return kernels.spatial_linear_attention(qkv, heads)
