"""Two masks of one scan as a whole: overlap, surfaces, volumes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from surface_distance import compute_robust_hausdorff, compute_surface_dice_at_tolerance

from nnunet_difftumor.evaluation.measures.surfaces import surface_distances


@dataclass(frozen=True)
class MaskFigures:
    """How far a predicted mask is from the true one.

    Attributes:
        dsc: Dice similarity coefficient, 0 to 1; 0 if exactly one mask is empty, None if both are.
        nsd: normalized surface Dice at the tolerance, 0 to 1; None and 0 as for dsc.
        hd95_mm: the larger one of the two directed 95th percentiles of surface distances; None unless both masks have
            voxels.
        truth_ml, predicted_ml: volumes.
    """

    dsc: float | None
    nsd: float | None
    hd95_mm: float | None
    truth_ml: float
    predicted_ml: float


def mask_figures(
    truth: np.ndarray, prediction: np.ndarray, *, spacing_mm: Sequence[float], nsd_tolerance_mm: float
) -> MaskFigures:
    """Compares two masks.

    Args:
        truth, prediction: boolean (z, y, x).
        spacing_mm: voxel size (z, y, x).
        nsd_tolerance_mm: distance up to which two surfaces count as the same.
    """
    true_voxels, predicted_voxels = np.count_nonzero(truth), np.count_nonzero(prediction)
    voxel_ml = math.prod(spacing_mm) / 1000
    volumes = true_voxels * voxel_ml, predicted_voxels * voxel_ml
    if not true_voxels and not predicted_voxels:
        return MaskFigures(None, None, None, *volumes)
    if not true_voxels or not predicted_voxels:
        return MaskFigures(0.0, 0.0, None, *volumes)
    distances = surface_distances(truth, prediction, spacing_mm)
    return MaskFigures(
        dice(np.count_nonzero(truth & prediction), true_voxels, predicted_voxels),
        float(compute_surface_dice_at_tolerance(distances, nsd_tolerance_mm)),
        float(compute_robust_hausdorff(distances, 95)),
        *volumes,
    )


def dice(common: int, first: int, second: int) -> float:
    """DSC of two masks by their numbers of voxels, of which at least one is not 0."""
    return float(2 * common / (first + second))


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """Of all that is marked; one voxel if nothing is, so that there are axes to work along."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        marked = np.flatnonzero(mask.any(axis=others))
        box.append(slice(marked[0], marked[-1] + 1) if len(marked) else slice(0, 1))
    return tuple(box)
