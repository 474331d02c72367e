"""nnU-Net's spatial augmentation at less cost, for crops of which most hold a tumor.

batchgeneratorsv2 resamples every label of a crop over the whole patch. So a tumor of 1 cm costs as much as the organ
around it, and so does -1, by which nnU-Net marks what is outside of the scan until it becomes background a few
transforms later.
"""

from collections.abc import Sequence
from copy import copy
from itertools import product

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from scipy.ndimage import find_objects

_OUTSIDE, _BACKGROUND = -1, 0
# Where the tumors' surroundings are more than this part of the patch, resampling in two parts saves nothing.
_GREATEST_PART = 0.5


def with_quick_spatial_transform(transforms: BasicTransform, tumor_labels: Sequence[int]) -> BasicTransform:
    """Puts `QuickSpatialTransform` where nnU-Net's training transforms have `SpatialTransform`.

    Subclasses of `SpatialTransform` stay what they are, and so does everything if nnU-Net still needs to know later
    what is outside of the scan (`use_mask_for_norm`, which CT does not have).

    Args:
        transforms: as from `nnUNetTrainer.get_training_transforms`; changed in place.
        tumor_labels: label values of tumors.
    """
    if not isinstance(transforms, ComposeTransforms):
        return transforms
    steps = transforms.transforms
    removed = any(
        isinstance(step, RemoveLabelTransform) and (step.label_value, step.set_to) == (_OUTSIDE, _BACKGROUND)
        for step in steps
    )
    if removed and not any(isinstance(step, MaskImageTransform) for step in steps):
        transforms.transforms = [
            QuickSpatialTransform.like(step, tumor_labels) if type(step) is SpatialTransform else step for step in steps
        ]
    return transforms


class QuickSpatialTransform(SpatialTransform):
    """`SpatialTransform` that makes -1 background first, and resamples tumors only where they are.

    The image is exactly that of `SpatialTransform`. So is the segmentation once -1 is background, except where a label
    meets both background and the outside of the scan. Made with `like`.

    Attributes:
        tumor_labels: label values of tumors.
    """

    tumor_labels: tuple[int, ...]

    @classmethod
    def like(cls, transform: SpatialTransform, tumor_labels: Sequence[int]) -> "QuickSpatialTransform":
        """A transform with the settings of another."""
        result = cls.__new__(cls)
        result.__dict__.update(transform.__dict__)
        result.tumor_labels = tuple(tumor_labels)
        if result.padding_value_seg == _OUTSIDE:
            result.padding_value_seg = _BACKGROUND
        return result

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params) -> torch.Tensor:
        segmentation = torch.where(segmentation == _OUTSIDE, _BACKGROUND, segmentation)
        grid = params["grid"]
        affine = grid is not None and grid.ndim == 4 and params["elastic_offsets"] is None
        parts = self._split(segmentation, grid) if affine and len(segmentation) == 1 else None
        if parts is None:
            return super()._apply_to_segmentation(segmentation, **params)
        rest, tumors, box = parts
        result = super()._apply_to_segmentation(rest, **params)
        if all(part.stop > part.start for part in box):
            around = copy(self)
            around.patch_size = [part.stop - part.start for part in box]
            params = {**params, "grid": grid[box]}
            result[(slice(None), *box)] = SpatialTransform._apply_to_segmentation(around, tumors, **params)
        return result

    def _split(
        self, segmentation: torch.Tensor, grid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[slice, ...]] | None:
        """Two segmentations with fewer labels than the one that they stand for.

        Returns:
            The segmentation without tumors, the one without what is far from tumors, and the box of the grid in which
            the second counts; None if there are no tumors or they are all over the patch.
        """
        mask = torch.zeros_like(segmentation, dtype=torch.bool)
        for label in self.tumor_labels:
            mask |= segmentation == label
        (found,) = find_objects(mask[0].numpy().view(np.uint8), max_label=1)
        if found is None:
            return None
        shape = segmentation.shape[1:]
        box = _reaching_box(grid, found, shape, align_corners=self.align_corners)
        if np.prod([part.stop - part.start for part in box]) > _GREATEST_PART * grid[..., 0].numel():
            return None
        # A neighbour's label stands in for the rest: far away it does not matter which, and it adds no other label.
        border = (0, *(slice(max(part.start - 1, 0), part.stop + 1) for part in found))
        neighbours = segmentation[border][~mask[border]]
        if not len(neighbours):
            return None
        near = (slice(None), *_sampled_box(grid[box], shape, align_corners=self.align_corners))
        tumors = torch.full_like(segmentation, neighbours[0])
        tumors[near] = segmentation[near]
        return torch.where(mask, neighbours[0], segmentation), tumors, box


def _reaching_box(
    grid: torch.Tensor, voxels: Sequence[slice], shape: Sequence[int], *, align_corners: bool
) -> tuple[slice, slice, slice]:
    """The box of an affine sampling grid (z, y, x, 3) outside of which no point draws on the given voxels.

    Args:
        grid: coordinates in (x, y, z) order, as `grid_sample` takes them.
        voxels: a box of what is sampled, along z, y and x.
        shape: (z, y, x) of what is sampled.
        align_corners: as `grid_sample` takes it.
    """
    size = np.array(shape[::-1], float)
    # Interpolation reaches less than 2 voxels (bicubic), and rounding is far below the third.
    ends = [(part.start - 3, part.stop + 2) for part in voxels[::-1]]
    corners = np.array(list(product(*ends)), float)
    corners = 2 * corners / np.maximum(size - 1, 1) - 1 if align_corners else (2 * corners + 1) / size - 1
    origin = grid[0, 0, 0].double().numpy()
    steps = [
        (grid[tuple(-1 if axis == other else 0 for other in range(3))].double().numpy() - origin) / max(count - 1, 1)
        for axis, count in enumerate(grid.shape[:3])
    ]
    index = np.linalg.solve(np.stack(steps, 1), (corners - origin).T)
    lower = np.floor(index.min(1)).astype(int)
    upper = np.ceil(index.max(1)).astype(int) + 1
    return tuple(
        slice(min(max(low, 0), count), max(min(high, count), 0))
        for low, high, count in zip(lower.tolist(), upper.tolist(), grid.shape[:3], strict=True)
    )


def _sampled_box(grid: torch.Tensor, shape: Sequence[int], *, align_corners: bool) -> tuple[slice, ...]:
    """The box of what is sampled on which the points of a sampling grid draw."""
    if not grid.numel():
        return (slice(0, 0),) * len(shape)
    box = []
    for axis, size in enumerate(shape):
        low, high = (float(value) for value in torch.aminmax(grid[..., 2 - axis]))
        first, last = (((end + 1) * (size - 1) if align_corners else (end + 1) * size - 1) / 2 for end in (low, high))
        box.append(slice(max(int(np.floor(first)) - 2, 0), max(int(np.ceil(last)) + 3, 0)))
    return tuple(box)
