"""One step of a sampler: what follows from the predicted noise, DDPM's and DDIM's alike."""

import torch

from nnunet_difftumor.kernels.checks import check_floating, check_reach, check_shape, check_volume
from nnunet_difftumor.kernels.implementation import uses_triton
from nnunet_difftumor.kernels.reference import denoise_step as reference

# Factors of a step, in this order: of z and of the prediction in the clean latent; then of the clean latent, z, the
# prediction and fresh noise in the result.
COEFFICIENTS = 6


def denoise_step(
    z: torch.Tensor,
    predicted: torch.Tensor,
    noise: torch.Tensor | None,
    *,
    coefficients: torch.Tensor,
    clip: bool,
) -> torch.Tensor:
    """c clean + d z + e predicted + f noise, with clean = a z + b predicted, clipped to [-1, 1] or not.

    On CUDA one launch, without gradients.

    Args:
        z: floating (b, c, d, h, w), the noisy latent; float32 on CUDA. Any strides.
        predicted: floating, of that shape and any strides: the predicted noise.
        noise: likewise; None for none.
        coefficients: (6,), in the dtype of z: a, b, c, d, e and f.
        clip: whether the clean latent is clipped.

    Returns:
        Of the shape and dtype of z; on CUDA channels-last in memory.

    Raises:
        InputError: for shapes that do not fit together, integer tensors or different devices; on CUDA also for another
            dtype of z than float32, a sample of 2^31 elements, or a GPU that is too old.
    """
    check_volume("z", z)
    others = {"predicted": predicted} | ({} if noise is None else {"noise": noise})
    for name, tensor in others.items():
        check_floating(name, tensor, z)
        check_shape(name, tensor, tuple(z.shape))
    check_floating("coefficients", coefficients, z)
    check_shape("coefficients", coefficients, (COEFFICIENTS,))
    if not uses_triton("z", z) or z.dtype != torch.float32:
        return reference.denoise_step(z, predicted, noise, coefficients, clip)
    from nnunet_difftumor.kernels.triton import denoise_step as kernels

    for name, tensor in ({"z": z} | others).items():
        check_reach(name, tensor)
    return kernels.denoise_step(z, predicted, noise, coefficients, clip)
