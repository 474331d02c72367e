"""The order of operations of the public DiffTumor code, step by step: for comparison with it, not for training.

It blends up to 16 voxels beyond the mask, also outside the organ, and replaces the whole patch for pancreas.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import Denoise

# The published networks see (z, x, y).
_TO_NETWORK = (0, 1, 4, 2, 3)
_FROM_NETWORK = (0, 1, 3, 4, 2)


class Published(NamedTuple):
    """Volumes float32 (b, 1, x, y, z), nominally in [0, 1], and labels uint8 of the same shape."""

    volume: np.ndarray
    label: np.ndarray


def synthesize_as_published(
    model: LatentDiffusion,
    volume: np.ndarray,
    *,
    organ_mask: np.ndarray,
    tumor_mask: np.ndarray,
    organ: str,
    sample: Callable[[Denoise], torch.Tensor],
    blur_voxels: float,
) -> Published:
    """Tumors in patches, blended as the public code does it.

    Args:
        model: imported weights.
        volume: float32 (b, 1, x, y, z) in [0, 1], from the window of the weights.
        organ_mask: 0 and 1, of the same shape.
        tumor_mask: boolean, of the same shape.
        organ: liver, kidney or pancreas; the last one is not blended.
        sample: draws a latent, given the network under its condition.
        blur_voxels: standard deviation of the mask's blur, one for the batch; the public code draws it from U(0, 4).

    Returns:
        The patches and their labels, 1 for the organ and 2 for the tumor.
    """
    if not volume.shape == organ_mask.shape == tumor_mask.shape or volume.ndim != 5 or volume.shape[1] != 1:
        raise InputError(
            f"volume, masks: expected one shape (b, 1, x, y, z), got {volume.shape}, {organ_mask.shape} and "
            f"{tumor_mask.shape}"
        )
    scaled = torch.from_numpy(2 * volume - 1).permute(_TO_NETWORK)
    tumor = torch.from_numpy(tumor_mask).permute(_TO_NETWORK)
    with torch.inference_mode():
        latent = sample(model.denoise(model.condition(scaled, tumor)))
        decoded = model.decode_scaled(latent).permute(_FROM_NETWORK).numpy()
    drawn = (decoded + 1) / 2
    label = (organ_mask > 0).astype(np.uint8)
    label[tumor_mask] = 2
    if organ == "pancreas":
        return Published(drawn, label)
    weight = gaussian_filter(tumor_mask.astype(np.float32), (0, 0, blur_voxels, blur_voxels, blur_voxels))
    blended = (1 - weight) * volume.clip(0, 1) + weight * drawn.clip(0, 1)
    return Published(blended.clip(0, 1), label)
