"""What the diffusion model is told: the scaled latent of the masked volume, and the mask on the latent's grid."""

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels.checks import check_floating, check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.implementation import needs_gradient, uses_triton
from nnunet_difftumor.kernels.reference import latent_condition as reference


def latent_condition(
    latent: torch.Tensor, mask: torch.Tensor, *, code_min: torch.Tensor, code_range: torch.Tensor
) -> torch.Tensor:
    """2 (latent - code_min) / code_range - 1, and behind it the mask as -1 and 1.

    A voxel of the latent has the mask of the first voxel of its block, as the published models were trained. A sample's
    mask that would vanish (about 1 in 200 of tiny tumors) keeps every block that it touches instead.

    On CUDA two launches, where the latent is float32 and needs no gradient; otherwise in PyTorch. Both give the same
    bits.

    Args:
        latent: floating (b, c, d, h, w) of any strides.
        mask: boolean (b, 1, z, x, y), each of the three a multiple of the latent's.
        code_min: floating scalar tensor.
        code_range: floating scalar tensor.

    Returns:
        (b, c + 1, d, h, w), of the dtype of the latent.

    Raises:
        InputError: for shapes that do not fit together, other dtypes or different devices; on CUDA also for float64, a
            sample of 2^31 elements, or a GPU that is too old.
    """
    check_volume("latent", latent)
    for name, tensor in (("code_min", code_min), ("code_range", code_range)):
        check_floating(name, tensor, latent)
        check_shape(name, tensor, ())
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.device != latent.device:
        raise InputError(f"mask: expected a boolean tensor on {latent.device}, got {mask!r}"[:200])
    grid = latent.shape[2:]
    fits = mask.ndim == 5 and mask.shape[:2] == (len(latent), 1) and min(mask.shape) > 0
    if not fits or any(size % own for size, own in zip(mask.shape[2:], grid, strict=True)):
        raise InputError(f"mask: expected (b, 1, z, x, y), multiples of {tuple(grid)}, got {tuple(mask.shape)}")
    on_triton = uses_triton("latent", latent) and latent.dtype == torch.float32
    if not on_triton or needs_gradient(latent):
        return reference.latent_condition(latent, mask, code_min, code_range)
    from nnunet_difftumor.kernels.triton import latent_condition as kernels

    for name, tensor in (("latent", latent), ("mask", mask)):
        check_reach(name, tensor)
    return kernels.latent_condition(latent, mask, code_min.float(), code_range.float())
