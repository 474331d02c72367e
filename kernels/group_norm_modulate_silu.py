"""What stands before nearly every convolution: GroupNorm, modulation by the time step, SiLU, padding."""

from collections.abc import Sequence

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_floating, check_norm_eps, check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.cpu import group_norm_modulate_silu as cpu
from nnunet_difftumor.kernels.implementation import is_cpu_inference, uses_triton
from nnunet_difftumor.kernels.reference import group_norm_modulate_silu as reference


def group_norm_modulate_silu(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor,
    groups: int,
    eps: float,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    replicate: Sequence[int] | None = None,
) -> torch.Tensor:
    """silu(group_norm(x) * (1 + scale) + shift), then the rim repeated outwards.

    Args:
        x: floating (b, c, d, h, w).
        weight: (c,), of the norm.
        bias: (c,), of the norm.
        groups: number of groups; divides c.
        eps: added to the variance.
        scale: (b, c); both or neither of scale and shift.
        shift: (b, c).
        replicate: voxels to add before and after, in the order of torch.nn.functional.pad: w before, w after, h before,
            h after, d before, d after.

    Returns:
        (b, c, d + added, h + added, w + added), of the dtype of x.

    Raises:
        InputError: for shapes that do not fit together, integer tensors, different devices or a negative padding; on
            CUDA also for float64, more channels than the kernel takes, a sample of 2^31 elements, or a GPU that is too
            old.
    """
    check_volume("x", x)
    batch, channels = x.shape[:2]
    if groups < 1 or channels % groups:
        raise InputError(f"groups: {groups} do not divide the {channels} channels of x")
    check_norm_eps(eps)
    for name, tensor in (("weight", weight), ("bias", bias)):
        check_floating(name, tensor, x)
        check_shape(name, tensor, (channels,))
    if (scale is None) != (shift is None):
        raise InputError("scale, shift: give both or neither")
    for name, tensor in (("scale", scale), ("shift", shift)):
        if tensor is not None:
            check_floating(name, tensor, x)
            check_shape(name, tensor, (batch, channels))
    if replicate is not None and (len(replicate) != 6 or min(replicate) < 0):
        raise InputError(f"replicate: expected six numbers of voxels, none negative, got {tuple(replicate)}")
    if uses_triton("x", x):
        return _by_triton(x, (weight, bias, scale, shift), groups, eps, tuple(replicate or (0,) * 6))
    form = cpu if is_cpu_inference(x) and x.is_contiguous(memory_format=torch.channels_last_3d) else reference
    return form.group_norm_modulate_silu(
        x, weight, bias=bias, groups=groups, eps=eps, scale=scale, shift=shift, replicate=replicate
    )


def _by_triton(
    x: torch.Tensor,
    parameters: tuple[torch.Tensor | None, ...],
    groups: int,
    eps: float,
    replicate: tuple[int, ...],
) -> torch.Tensor:
    from nnunet_difftumor.kernels.triton import group_norm_modulate_silu as kernels

    x = x if kernels.is_dense(x) else x.contiguous()
    check_reach("x", x)
    kernels.check(x)
    parameters = (None if given is None else given.float().contiguous() for given in parameters)
    return kernels.group_norm_modulate_silu(x, *parameters, groups, eps, replicate)[0]
