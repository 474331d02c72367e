"""A sampler's step in plain PyTorch."""

import torch


def denoise_step(
    z: torch.Tensor, predicted: torch.Tensor, noise: torch.Tensor | None, coefficients: torch.Tensor, clip: bool
) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.denoise_step`."""
    a, b, c, d, e, f = coefficients
    predicted = predicted.to(z.dtype)
    clean = a * z + b * predicted
    if clip:
        clean = clean.clamp(-1, 1)
    result = c * clean + d * z + e * predicted
    return result if noise is None else result + f * noise.to(z.dtype)
