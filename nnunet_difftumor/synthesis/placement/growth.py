"""Where around an organ there is fat to grow into: a coarse look at it, before places are examined one by one."""

import numpy as np

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.separable import cell_mean
from nnunet_difftumor.synthesis.shape.room import room_of_cells
from nnunet_difftumor.synthesis.volume import Volume, clipped_box

# Large tumors reach so far beyond the organ.
_MARGIN_MM = 35.0
_CELL_MM = 3.0


class GrowthMap:
    """Room for exophytic tumors around one organ of a scan, in cells.

    Args:
        volume: the scan.
        statistics: of the organ in that scan.
        organ: which labels.
    """

    def __init__(self, volume: Volume, statistics: OrganStatistics, organ: Organ) -> None:
        spacing = np.asarray(volume.spacing_mm)
        step = np.maximum(np.round(_CELL_MM / spacing).astype(int), 1)
        margin = np.ceil(_MARGIN_MM / spacing).astype(int)
        first = np.asarray(statistics.cell_origin)
        last = first + np.multiply(statistics.organ_cells.shape, statistics.cell_voxels)
        first = np.maximum(first - margin, 0)
        # Whole cells; what is left at the end of the scan is no place for a large tumor anyway.
        count = np.maximum((np.minimum(last + margin, volume.shape) - first) // step, 1)
        box = clipped_box(first, first + count * step, volume.shape)
        labels = volume.labels(box)[tuple(slice(n // 2, None, n) for n in step)]
        mean_hu = cell_mean(volume.hu(box), step)
        self._cell_mm, self._first_mm = step * spacing, (first - 0.5) * spacing
        self._room = room_of_cells(mean_hu, organ.mask(labels), labels == 0, self._cell_mm)

    def share_of(self, points_mm: np.ndarray) -> np.ndarray:
        """Float (n,): share of each row of points (n, k, 3) that is in the organ or in fat."""
        cells = np.floor((points_mm - self._first_mm) / self._cell_mm).astype(int)
        shape = np.asarray(self._room.shape)
        within = ((cells >= 0) & (cells < shape)).all(-1)
        return (self._room[tuple(np.moveaxis(np.clip(cells, 0, shape - 1), -1, 0))] & within).mean(1)
