"""A CT scan in memory."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor.ct.geometry import check_affine, rectangular_affine, spacing_of


@dataclass(frozen=True, eq=False)
class Scan:
    """One CT scan in memory.

    Attributes:
        hu: float32 (z, y, x), HU.
        spacing_mm: voxel size (z, y, x).
        affine: float64 4 x 4, from indices (x, y, z) to RAS+ mm, with axes at right angles.
        header: NIfTI header with on-disk dtype, slope and intercept, and qform and sform as found in the file, or set
            to `affine` where the file's axes were a little off the right angle or its voxel size was stated. Of a scan
            that was no NIfTI file, one that says the same.
        path: file or folder it was read from; None if it was made in memory.
        spacing_was_stated: the file's header was never set, the voxel size is what the user says.
        note: what the user should know of how it was read.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    header: nib.Nifti1Header
    path: Path | None = None
    spacing_was_stated: bool = False
    note: str = ""

    @property
    def shape_xyz(self) -> tuple[int, ...]:
        """Voxels (x, y, z), in the order of headers."""
        return self.hu.shape[::-1]

    @property
    def direction(self) -> np.ndarray:
        """3 x 3; the columns are the unit vectors of the array axes z, y, x in RAS+ space."""
        return (self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))[:, ::-1]


def scan_from_array(hu: np.ndarray, *, affine: np.ndarray, dtype: np.dtype | type = np.int16) -> Scan:
    """Makes a Scan in memory, stored as int16 HU when written.

    Args:
        hu: (z, y, x), HU.
        dtype: to store it as something else.
        affine: 4 x 4, from indices (x, y, z) to RAS+ mm.

    Raises:
        InputError: the affine is sheared or singular, or its spacing is outside 0.1 to 20 mm.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(hu.shape[::-1])
    header.set_slope_inter(1.0, 0.0)
    header.set_xyzt_units("mm")
    affine = np.asarray(affine, np.float64)
    check_affine(affine, "affine")
    affine = rectangular_affine(affine, hu.shape[::-1], "affine")
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    return Scan(np.asarray(hu, np.float32), spacing_of(affine), affine, header)
