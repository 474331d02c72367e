"""The condition of a masked volume, one step after the other."""

import torch
from torch.nn import functional


def latent_condition(
    latent: torch.Tensor, mask: torch.Tensor, code_min: torch.Tensor, code_range: torch.Tensor
) -> torch.Tensor:
    """See `nnunet_difftumor.kernels.latent_condition`."""
    scaled = 2 * (latent - code_min) / code_range - 1
    blocks = tuple(size // own for size, own in zip(mask.shape[2:], latent.shape[2:], strict=True))
    on_grid = mask_on_latent_grid(mask, blocks)
    return torch.cat((scaled, 2 * on_grid.to(latent.dtype) - 1), dim=1)


def mask_on_latent_grid(mask: torch.Tensor, downsampling: tuple[int, int, int]) -> torch.Tensor:
    """Boolean (b, 1, z, x, y) on the latent grid: the first voxel of each block.

    A mask that would vanish keeps every block that it touches instead.
    """
    first = mask[:, :, :: downsampling[0], :: downsampling[1], :: downsampling[2]]
    touched = functional.max_pool3d(mask.float(), downsampling).bool()
    lost = ~first.flatten(1).any(1)
    return torch.where(lost.view(-1, 1, 1, 1, 1), touched, first)
