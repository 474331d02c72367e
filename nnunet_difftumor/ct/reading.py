"""Reads CT scans in HU and label maps from NIfTI, MetaImage and NRRD files, and CT scans from folders of DICOM."""

import itertools
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct.dicom.study import read_study
from nnunet_difftumor.ct.geometry import check_same_grid, check_stated_spacing, has_no_form, spacing_of
from nnunet_difftumor.ct.headers import placed
from nnunet_difftumor.ct.hounsfield import check_hu
from nnunet_difftumor.ct.images import StoredImage, load_image
from nnunet_difftumor.ct.scan import Scan
from nnunet_difftumor.errors import InputError

# Labels that were stored with a scale factor, or resampled, come back this near to whole numbers.
LABEL_TOLERANCE = 1e-3


def read_ct(path: str | os.PathLike, *, spacing_mm: Sequence[float] | None = None) -> Scan:
    """Reads a CT scan in HU from .nii.gz, .nii, .mha or .nrrd, to the last byte of the file, or from DICOM files.

    Trailing axes of length 1 are dropped; slope and intercept are applied in float64 and the result is rounded to
    float32. Where the header has both, the sform goes before the qform, as in nibabel. Axes that are a little off the
    right angle are put right, if that moves no voxel by more than a tenth of its size.

    Args:
        path: the file; or a folder with one CT series of DICOM that fits, in it or below (see `read_study`).
        spacing_mm: voxel size (z, y, x) of a scan whose header was never set; a header that was set is taken at its
            word.

    Raises:
        InputError: the file is missing, damaged, not a three-dimensional real image, has NaN or inf, less than 4 voxels
            along an axis, a spacing outside 0.1 to 20 mm or none, a sheared or singular affine, a qform unlike the
            sform, or values that cannot be HU.
    """
    path = Path(path)
    check_stated_spacing(spacing_mm)
    if path.is_dir():
        return read_study(path)
    stored, affine, header, slope, intercept = load_image(path, what="CT scan")
    header = header.copy()
    header, affine, unset = placed(header, affine, stored.shape, path, spacing_mm=spacing_mm)
    hu = np.empty(stored.shape[::-1], np.float32)
    for z in range(len(hu)):
        plane = stored[:, :, z].T
        hu[z] = plane if (slope, intercept) == (1.0, 0.0) else plane.astype(np.float64) * slope + intercept
    if not np.isfinite(hu).all():
        raise InputError(
            f"{path}: {np.count_nonzero(~np.isfinite(hu))} voxels are NaN or infinite; replace them, for instance by "
            "-1024 HU where they are padding"
        )
    check_hu(hu, path)
    header.set_slope_inter(slope, intercept)
    return Scan(hu, spacing_of(affine), affine, header, path, spacing_was_stated=unset)


def read_labels(
    path: str | os.PathLike, *, like: Scan | None = None, declared: Collection[int] | None = None
) -> np.ndarray:
    """Reads a label map from .nii.gz, .nii, .mha or .nrrd, to the last byte of the file.

    Args:
        path: the file; any data type, if all values are whole numbers from 0 to 32767, or within 1e-3 of them, as a
            scale factor or a resampling leaves them.
        like: the scan it belongs to: same shape, and every corner voxel at the same place within a tenth of a voxel;
            if the scan's voxel size had to be stated, a header that was never set either will do.
        declared: the label values that may occur; 0 always may.

    Returns:
        (z, y, x), uint8, or int16 if a value is above 255.

    Raises:
        InputError: the file is damaged, does not hold labels, does not lie on the scan's grid, or holds other values.
    """
    path = Path(path)
    image = load_image(path, what="label map")
    if like is not None:
        check_same_grid(image.stored.shape, image.affine, like, path, unset=has_no_form(image.header))
    return _labels(image, path, declared)


def read_label_grid(path: str | os.PathLike) -> Scan:
    """A label map in the place of a scan, so that other label maps can be checked against its grid.

    Raises:
        InputError: as `read_labels`.
    """
    path = Path(path)
    image = load_image(path, what="label map")
    labels = _labels(image, path, None)
    return Scan(labels, spacing_of(image.affine), image.affine, image.header, path)


def _labels(image: StoredImage, path: Path, declared: Collection[int] | None) -> np.ndarray:
    stored = image.stored
    # Labels are few: values are checked, scaled and compared once per value, not once per voxel.
    values = np.unique(stored.ravel(order="K"))
    scaled = values.astype(np.float64) * image.slope + image.intercept
    labels = np.rint(scaled)
    with np.errstate(invalid="ignore"):
        good = (labels >= 0) & (labels <= 32767) & (np.abs(scaled - labels) <= LABEL_TOLERANCE)
    if not good.all():
        raise InputError(
            f"{path}: a label map holds whole numbers from 0 to 32767, but this file holds "
            f"{_some(scaled[~good].tolist())}; is it an image or a probability map? Round it if it is neither"
        )
    undeclared = sorted({int(label) for label in labels} - {0} - set(declared if declared is not None else labels))
    if undeclared:
        raise InputError(
            f"{path}: label values {_some(undeclared)} are not declared (declared: {_some(sorted(declared))}); "
            "declare them or remove them from the file"
        )
    dtype = np.uint8 if labels.max() <= 255 else np.int16
    if np.array_equal(values, labels) and stored.dtype.kind != "f":
        return np.ascontiguousarray(stored.T.astype(dtype))
    return labels.astype(dtype)[np.searchsorted(values, np.ascontiguousarray(stored.T))]


def _some(values: Collection[float]) -> str:
    # Enough digits to tell 1.00002 from 1.
    shown = ", ".join(f"{value:.9g}" for value in itertools.islice(values, 12))
    return shown + (f", ... ({len(values)} in all)" if len(values) > 12 else "") if values else "none"
