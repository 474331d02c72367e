"""nnU-Net's spatial augmentation at less cost, for crops of which most hold a tumor.

batchgeneratorsv2 resamples every label of a crop over the whole patch. So a tumor of 1 cm costs as much as the organ
around it, and so does -1, by which nnU-Net marks what is outside of the scan until it becomes background a few
transforms later. Here what is background everywhere is not resampled at all.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from torch.nn.functional import grid_sample

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
    """`SpatialTransform` that makes -1 background first, and resamples organs and tumors only where they are.

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
        grid = params["grid"]
        affine = grid is not None and grid.ndim == 4 and params["elastic_offsets"] is None
        as_in_nnunet = self.mode_seg == "bilinear" and self.seg_tiebreak == "nearest"
        if not (affine and as_in_nnunet and self._pads_background and len(segmentation) == 1):
            segmentation = torch.where(segmentation == _OUTSIDE, _BACKGROUND, segmentation)
            return super()._apply_to_segmentation(segmentation, **params)
        result = segmentation.new_full((1, *self.patch_size), _BACKGROUND)
        labels = np.maximum(segmentation[0].numpy(), _BACKGROUND) if segmentation.min() < 0 else segmentation[0].numpy()
        foreground = _bounding_box(labels)
        if foreground is None:
            return result
        around = _reaching_box(grid, foreground, labels.shape, align_corners=self.align_corners)
        vote = _Vote(labels.shape, align_corners=self.align_corners)
        for part, values, box in self._parts(labels, foreground, grid=grid, around=around):
            if _size(box):
                result[(0, *box)] = vote(torch.from_numpy(part), values, grid[box])
        return result

    @property
    def _pads_background(self) -> bool:
        pad = self.padding_value_seg if self.border_mode_seg == "constant" else _BACKGROUND
        return pad == _BACKGROUND and self._get_grid_sample_padding_mode(self.border_mode_seg) == "zeros"

    def _parts(
        self, labels: np.ndarray, foreground: tuple[slice, ...], *, grid: torch.Tensor, around: tuple[slice, ...]
    ) -> list[tuple[np.ndarray, list[int], tuple[slice, ...]]]:
        """Label maps with fewer labels than the one that they stand for, their labels, and the boxes that they fill.

        Later ones count where boxes overlap.

        Args:
            labels: (z, y, x) without what is outside.
            foreground: box of all that is not background.
            grid: where to sample.
            around: box of the grid that draws on the foreground.
        """
        inside = labels[foreground]
        values = _values(inside)
        whole = [(labels, values, around)]
        mask = np.isin(inside, self.tumor_labels)
        tumors = _bounding_box(mask)
        if tumors is None:
            return whole
        tumors = tuple(
            slice(side.start + first.start, side.stop + first.start)
            for side, first in zip(tumors, foreground, strict=True)
        )
        box = _reaching_box(grid, tumors, labels.shape, align_corners=self.align_corners)
        if _size(box) > _GREATEST_PART * _size(around):
            return whole
        # A neighbour's label stands in for the rest: far away it does not matter which, and it adds no other label.
        border = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in tumors)
        neighbours = labels[border][~np.isin(labels[border], self.tumor_labels)]
        if not len(neighbours):
            return whole
        near = _sampled_box(grid[box], labels.shape, align_corners=self.align_corners)
        only_tumors = np.full_like(labels, neighbours[0])
        only_tumors[near] = labels[near]
        no_tumors = labels.copy()
        no_tumors[foreground] = np.where(mask, neighbours[0], inside)
        rest = sorted({*values, int(neighbours[0])} - {*self.tumor_labels})
        return [(no_tumors, rest, around), (only_tumors, _values(labels[near]), box)]


def _values(labels: np.ndarray) -> list[int]:
    """The labels of a label map."""
    return np.flatnonzero(np.bincount(labels.ravel())).tolist()


class _Vote:
    """Resamples label maps as `SpatialTransform` does: trilinear scores per label, the highest wins.

    The scores are rounded to float16, and ties go to the label of the nearest voxel if it is among the best, else to
    the smallest label: the same scores and the same rule, so the same labels. The difference: the nearest voxel is
    looked up where there is a tie and nowhere else.

    Args:
        shape: (z, y, x) of the label maps; what is outside is background.
        align_corners: as `grid_sample` takes it.
    """

    _FULL_SCORE = 1000

    def __init__(self, shape: Sequence[int], *, align_corners: bool) -> None:
        self._settings = {"padding_mode": "zeros", "align_corners": align_corners}
        self._values = torch.empty(tuple(shape), dtype=torch.float32)

    def __call__(self, labels: torch.Tensor, values: Sequence[int], grid: torch.Tensor) -> torch.Tensor:
        """The label map (z, y, x), which has these values, at the points of a grid (z, y, x, 3)."""
        found = sorted({*values, _BACKGROUND})
        if len(found) == 2:  # the two scores add up to the full one: the second decides
            score = self._score(labels, found[1], grid)
            result = torch.where(score > self._FULL_SCORE / 2, found[1], found[0]).to(labels.dtype)
            tied = score == self._FULL_SCORE / 2
            result[tied] = self._nearest(labels, grid[tied])
            return result
        scores = torch.stack([self._score(labels, label, grid) for label in found])
        best, winner = scores.max(0)
        candidates = torch.tensor(found, dtype=labels.dtype)
        result = candidates[winner]
        tied = (scores == best).sum(0) > 1
        nearest = self._nearest(labels, grid[tied])
        own = scores[:, tied].gather(0, torch.searchsorted(candidates, nearest)[None])[0]
        result[tied] = torch.where(own == best[tied], nearest, result[tied])
        return result

    def _score(self, labels: torch.Tensor, label: int, grid: torch.Tensor) -> torch.Tensor:
        """float16 (z, y, x)."""
        full = self._FULL_SCORE
        values = torch.eq(labels, label, out=self._values).mul_(full)
        shift = full if label == _BACKGROUND else 0  # outside is background too, while grid_sample pads with 0
        score = grid_sample((values.sub_(shift) if shift else values)[None, None], grid[None], **self._settings)[0, 0]
        return (score.add_(shift) if shift else score).to(torch.float16)

    def _nearest(self, labels: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Labels of the voxels nearest to points (n, 3)."""
        values = self._values.copy_(labels)[None, None]
        found = grid_sample(values, points[None, None, None], mode="nearest", **self._settings)
        return found.reshape(-1).to(labels.dtype)


def _size(box: Sequence[slice]) -> int:
    return int(np.prod([max(side.stop - side.start, 0) for side in box]))


def _bounding_box(labels: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Of what is above 0 in an array (z, y, x)."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(labels[tuple(box)].max(tuple(other for other in range(3) if other != axis)) > 0)
        if not len(hit):
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)


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
    """The box of what is sampled on which the points of an affine sampling grid draw."""
    if not grid.numel():
        return (slice(0, 0),) * len(shape)
    corners = grid[np.ix_(*[(0, -1)] * 3)]
    box = []
    for axis, size in enumerate(shape):
        low, high = (float(value) for value in torch.aminmax(corners[..., 2 - axis]))
        first, last = (((end + 1) * (size - 1) if align_corners else (end + 1) * size - 1) / 2 for end in (low, high))
        box.append(slice(max(int(np.floor(first)) - 2, 0), max(int(np.ceil(last)) + 3, 0)))
    return tuple(box)
