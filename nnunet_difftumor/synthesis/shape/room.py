"""Where a tumor may be: its organ, and for one that grows out of it the fat around."""

from collections.abc import Sequence

import edt
import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.spec import TumorSpec

# Fat, by its local mean: bowel, muscle and vessels are brighter, lung and bowel gas darker.
_FAT_HU = (-170.0, -20.0)
_SMOOTHING_MM = 1.0
_RIM_MM = 2.5


def room_of(
    hu: np.ndarray, labels: np.ndarray, spec: TumorSpec, *, organ: Organ, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (z, y, x): the organ, and for exophytic tumors also fat that no label claims.

    Args:
        hu: (z, y, x).
        labels: integer (z, y, x); 0 is nothing in particular.
        spec: the tumor.
        organ: which labels are the organ.
        spacing_mm: voxel size, (z, y, x).
    """
    inside = organ.mask(labels)
    if not spec.exophytic:
        return inside
    smooth = gaussian_filter(hu, _SMOOTHING_MM / np.asarray(spacing_mm))
    free = labels == 0
    fat = free & (smooth > _FAT_HU[0]) & (smooth < _FAT_HU[1])
    # Between organ and fat lies a rim of mixed intensities, which is neither.
    rim = free & _close_to(inside, spacing_mm) & _close_to(fat, spacing_mm)
    return inside | fat | rim


def _close_to(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    distance = edt.edt(~mask, anisotropy=[float(size) for size in spacing_mm])
    return distance <= max(_RIM_MM, 1.5 * min(spacing_mm)) if mask.any() else mask
