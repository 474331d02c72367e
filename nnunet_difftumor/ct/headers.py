"""Where scans and label maps lie, as their headers say: no voxel is read."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor.ct.dicom.study import choose_series
from nnunet_difftumor.ct.geometry import (
    check_same_grid,
    check_stated_spacing,
    has_no_form,
    is_header_unset,
    rectangular_affine,
    spacing_of,
    with_affine,
    with_stated_spacing,
)
from nnunet_difftumor.ct.images import load_header
from nnunet_difftumor.errors import InputError


@dataclass(frozen=True, eq=False)
class ScanHeader:
    """What the header of a CT scan says.

    Attributes:
        shape_xyz: voxels (x, y, z).
        spacing_mm: voxel size (z, y, x).
        affine: 4 x 4, from indices (x, y, z) to RAS+ mm, with axes at right angles.
        path: file or folder it was read from.
        spacing_was_stated: the header was never set, the voxel size is what the user says.
    """

    shape_xyz: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    path: Path
    spacing_was_stated: bool = False


def read_ct_header(path: str | os.PathLike, *, spacing_mm: Sequence[float] | None = None) -> ScanHeader:
    """Reads what `read_ct` reads before the voxels.

    Args:
        path, spacing_mm: as `read_ct` takes them.

    Raises:
        InputError: as `read_ct`, as far as headers show it.
    """
    path = Path(path)
    check_stated_spacing(spacing_mm)
    if path.is_dir():
        series, _ = choose_series(path)
        shape = series.shape[::-1]
        affine = rectangular_affine(series.affine[:, [2, 1, 0, 3]], shape, path)
        return ScanHeader(shape, spacing_of(affine), affine, path)
    shape, affine, header = load_header(path, what="CT scan")
    _, affine, unset = placed(header, affine, shape, path, spacing_mm=spacing_mm)
    return ScanHeader(shape, spacing_of(affine), affine, path, unset)


def check_labels_header(path: str | os.PathLike, *, like: ScanHeader) -> None:
    """Checks what `read_labels` checks before the voxels.

    Args:
        path: the label map.
        like: the scan it belongs to.

    Raises:
        InputError: as `read_labels`, as far as headers show it.
    """
    path = Path(path)
    shape, affine, header = load_header(path, what="label map")
    check_same_grid(shape, affine, like, path, unset=has_no_form(header))


def placed(
    header: nib.Nifti1Header,
    affine: np.ndarray,
    shape: Sequence[int],
    path: Path,
    *,
    spacing_mm: Sequence[float] | None,
) -> tuple[nib.Nifti1Header, np.ndarray, bool]:
    """Where a scan lies: with its axes at right angles, and the voxel size that was stated if its header was never set.

    Args:
        header, affine: as they are in the file.
        shape: voxels (x, y, z).
        path: of the file, for messages.
        spacing_mm: that is stated, (z, y, x); or None.

    Returns:
        Header and affine (4 x 4), and whether the header was never set.

    Raises:
        InputError: the header was never set and nothing is stated, or the axes are sheared.
    """
    unset = has_no_form(header) or is_header_unset(affine, shape)
    if unset:
        if spacing_mm is None:
            raise InputError(_unset_message(path, header, affine))
        header, affine = with_stated_spacing(header, affine, spacing_mm)
    rectangular = rectangular_affine(affine, shape, path)
    if rectangular is not affine:
        header, affine = with_affine(header, rectangular), rectangular
    return header, affine, unset


def _unset_message(path: Path, header: nib.Nifti1Header, affine: np.ndarray) -> str:
    sizes = " x ".join(f"{size:.4g}" for size in spacing_of(affine))
    seen = (
        f"neither qform nor sform is set, pixdim says {sizes} mm (z, y, x)"
        if has_no_form(header)
        else "a spacing of exactly 1 mm along every axis"
    )
    return (
        f"{path}: the header seems never to have been set ({seen}), so sizes in mm are unknown; correct the header, or "
        "state the voxel size: `spacing_mm` Z Y X"
    )
