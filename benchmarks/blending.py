"""What the public code does with the picture, as operations of one device, so that a graph can hold it too."""

import torch

# Standard deviations up to which the blur of a mask reaches, as scipy.ndimage.gaussian_filter has it.
_TRUNCATE = 4.0


def blend(
    volume: torch.Tensor, decoded: torch.Tensor, tumor: torch.Tensor, *, sigma_voxels: torch.Tensor
) -> torch.Tensor:
    """Volume outside of the tumor, picture inside, by the blurred mask: what the public code does for liver and kidney.

    Args:
        volume: (b, 1, z, x, y) in [-1, 1].
        decoded: likewise; cut to [-1, 1].
        tumor: boolean of the same shape.
        sigma_voxels: 0-dimensional, on the same device, above 0; of the Gaussian that blurs the mask.

    Returns:
        (b, 1, z, x, y) in [-1, 1].
    """
    weight = tumor.to(volume.dtype)
    matrices = {size: _gaussian(size, sigma_voxels) for size in set(weight.shape[2:])}
    for axis in (2, 3, 4):
        weight = (weight.movedim(axis, -1) @ matrices[weight.shape[axis]].T).movedim(-1, axis)
    return volume.clamp(-1, 1).lerp(decoded.clamp(-1, 1), weight)


def _gaussian(size: int, sigma: torch.Tensor) -> torch.Tensor:
    """(size, size) that blurs an axis, which is mirrored at its ends: scipy's mode "reflect"."""
    position = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    radius = (_TRUNCATE * sigma + 0.5).floor()

    def kernel(distance: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * (distance / sigma).square()) * (distance.abs() <= radius)

    images = (position, -1 - position, 2 * size - 1 - position)
    matrix = sum(kernel(position[:, None] - image) for image in images)
    return matrix / matrix.sum(1, keepdim=True)
