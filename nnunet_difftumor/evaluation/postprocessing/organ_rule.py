"""Which predicted tumors belong to an organ: those with a share of their voxels in it or near it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from scipy.ndimage import binary_fill_holes, find_objects

from nnunet_difftumor.evaluation.measures.matching import CONNECTIVITY

# Tumors at the surface of an organ are in none of its holes where its mask leaves them out; metastases of up to 54 mm
# then have 0.48 of their voxels or more within 5 mm of the rest (docs/first_training.md, tested on that scan).
MIN_OVERLAP, TOLERANCE_MM = 0.25, 5.0


@dataclass(frozen=True)
class Component:
    """A connected component (26 neighbours) of predicted tumor.

    Attributes:
        voxels: their number.
        overlap: share of them in the organ or near it, 0 to 1.
        kept: whether it belongs to the organ.
    """

    voxels: int
    overlap: float
    kept: bool


def region_of(organ: np.ndarray, *, spacing_mm: Sequence[float], tolerance_mm: float) -> np.ndarray:
    """The organ with its holes filled, and all that is within a tolerance of it.

    Args:
        organ: boolean (z, y, x).
        spacing_mm: voxel size (z, y, x).
        tolerance_mm: between the centres of voxels, 0 or more.

    Returns:
        Boolean (z, y, x); all False if there is no organ.
    """
    region = np.zeros(organ.shape, bool)
    boxes = find_objects(organ.astype(np.uint8))
    if not boxes:
        return region
    # With a margin that the tolerance does not leave; a hole is what touches no edge of the tighter box.
    margins = [int(tolerance_mm / step) + 1 for step in spacing_mm]
    box = tuple(
        slice(max(0, axis.start - margin), min(size, axis.stop + margin))
        for axis, margin, size in zip(boxes[0], margins, organ.shape, strict=True)
    )
    filled = binary_fill_holes(np.pad(organ[box], 1))[1:-1, 1:-1, 1:-1]
    if tolerance_mm > 0:
        distance_mm = edt.edt(np.ascontiguousarray(~filled), anisotropy=tuple(map(float, spacing_mm)))
        filled |= distance_mm <= tolerance_mm
    region[box] = filled
    return region


def judge(tumor: np.ndarray, region: np.ndarray, *, min_overlap: float) -> tuple[np.ndarray, list[Component]]:
    """Judges every connected component of a tumor mask.

    Args:
        tumor: boolean (z, y, x).
        region: boolean (z, y, x), of the organ.
        min_overlap: share of a component's voxels that must lie in the region, above 0 and up to 1.

    Returns:
        What does not belong to the organ, boolean (z, y, x), and the components, the largest first.
    """
    removed = np.zeros(tumor.shape, bool)
    boxes = find_objects(tumor.astype(np.uint8))
    if not boxes:
        return removed, []
    box = boxes[0]
    numbers = cc3d.connected_components(np.ascontiguousarray(tumor[box]), connectivity=CONNECTIVITY)
    voxels = np.bincount(numbers.ravel())
    overlap = np.bincount(numbers[region[box]], minlength=len(voxels)) / voxels.clip(1)
    kept = overlap >= min_overlap
    kept[0] = True  # what is no tumor
    removed[box] = ~kept[numbers]
    components = [
        Component(int(count), float(share), bool(keep))
        for count, share, keep in zip(voxels[1:], overlap[1:], kept[1:], strict=True)
    ]
    return removed, sorted(components, key=lambda component: -component.voxels)
