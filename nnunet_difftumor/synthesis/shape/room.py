"""Where a tumor may be: its organ, or the wall of a hollow one, and for one that grows out of it the fat around."""

from collections.abc import Sequence

import edt
import numpy as np

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.shape.wall import enclosed_in, fat_in, wall_in
from nnunet_difftumor.synthesis.spec import TumorSpec

_RIM_MM = 2.5


def room_of(
    hu: np.ndarray, labels: np.ndarray, spec: TumorSpec, *, organ: Organ, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (z, y, x): the organ, and for exophytic tumors also fat that no label claims; never the lumen of a hollow
    organ, unless the spec says so.

    Args:
        hu: (z, y, x).
        labels: integer (z, y, x); 0 is nothing in particular.
        spec: the tumor.
        organ: which labels are the organ.
        spacing_mm: voxel size, (z, y, x).
    """
    hollow = spec.wall_mm > 0
    inside = (
        organ.mask(labels)
        if hollow and spec.fills_lumen
        else tissue_of(hu, labels, wall_mm=spec.wall_mm, organ=organ, spacing_mm=spacing_mm)
    )
    if not spec.exophytic:
        return inside
    free = labels == 0
    if hollow:
        free &= ~enclosed_in(hu, organ.whole(labels), spacing_mm=spacing_mm)
    fat = free & fat_in(hu, spacing_mm)
    # Between organ and fat lies a rim of mixed intensities, which is neither.
    rim = free & _close_to(inside, spacing_mm) & _close_to(fat, spacing_mm)
    return inside | fat | rim


def tissue_of(
    hu: np.ndarray, labels: np.ndarray, *, wall_mm: float, organ: Organ, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (z, y, x): healthy tissue of the organ, which of a hollow one is its wall.

    Args:
        hu: (z, y, x).
        labels: integer (z, y, x).
        wall_mm: of the wall; 0 for a solid organ.
        organ: which labels are the organ.
        spacing_mm: voxel size, (z, y, x).
    """
    mask = organ.mask(labels)
    if not wall_mm:
        return mask
    return wall_in(hu, mask, organ.whole(labels), wall_mm=wall_mm, spacing_mm=spacing_mm)


def _close_to(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    distance = edt.edt(~mask, anisotropy=[float(size) for size in spacing_mm])
    return distance <= max(_RIM_MM, 1.5 * min(spacing_mm)) if mask.any() else mask
