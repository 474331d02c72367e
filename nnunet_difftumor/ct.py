"""Reads and writes CT scans and label maps as NIfTI: arrays (z, y, x), HU, mm, with the checks that bad files need.

The array order is that of nnU-Net's SimpleITK reader; positions in space are RAS+ in mm, as nibabel gives them.
"""

import itertools
import os
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path

SUFFIXES = (".nii.gz", ".nii")
SPACING_LIMITS_MM = (0.1, 20.0)
MIN_VOXELS_PER_AXIS = 4
MAX_DESCRIPTION_BYTES = 79
# A label map may be off by this part of the smallest voxel size at any corner: float32 headers round to less than
# this, and a mask moved by less than this has the same voxels.
GEOMETRY_TOLERANCE_VOXELS = 0.1


@dataclass(frozen=True, eq=False)
class Scan:
    """One CT scan in memory.

    Attributes:
        hu: float32 (z, y, x), HU.
        spacing_mm: voxel size (z, y, x).
        affine: float64 4 x 4, from indices (x, y, z) to RAS+ mm.
        header: NIfTI header with on-disk dtype, slope and intercept, qform and sform as found in the file.
        path: file it was read from; None if it was made in memory.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    header: nib.Nifti1Header
    path: Path | None = None

    @property
    def direction(self) -> np.ndarray:
        """3 x 3; the columns are the unit vectors of the array axes z, y, x in RAS+ space."""
        return (self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))[:, ::-1]


def read_ct(path: str | os.PathLike) -> Scan:
    """Reads a CT scan in HU from .nii or .nii.gz.

    A fourth axis of length 1 is dropped; slope and intercept are applied in float64 and the result is rounded to
    float32. Where the header has both, the sform goes before the qform, as in nibabel.

    Raises:
        InputError: the file is missing, broken, not a three-dimensional real image, has NaN or inf, less than 4 voxels
            along an axis, a spacing outside 0.1 to 20 mm, a sheared or singular affine, or values that cannot be HU.
    """
    image, stored = _load(path, what="CT scan")
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    hu = np.empty(stored.shape[::-1], np.float32)
    for z in range(len(hu)):
        plane = stored[:, :, z].T
        hu[z] = plane if (slope, intercept) == (1.0, 0.0) else plane.astype(np.float64) * slope + intercept
    if not np.isfinite(hu).all():
        raise InputError(
            f"{path}: {np.count_nonzero(~np.isfinite(hu))} voxels are NaN or infinite; replace them, for instance by "
            "-1024 HU where they are padding"
        )
    _check_hu(hu, path)
    header = image.header.copy()
    header.set_slope_inter(slope, intercept)
    return Scan(hu, _spacing_mm(image.affine), image.affine, header, Path(path))


def read_labels(
    path: str | os.PathLike, *, like: Scan | None = None, declared: Collection[int] | None = None
) -> np.ndarray:
    """Reads a label map from .nii or .nii.gz.

    Args:
        path: the file; any data type, if all values are whole numbers from 0 to 32767.
        like: the scan it belongs to: same shape, and every corner voxel at the same place within a tenth of a voxel.
        declared: the label values that may occur; 0 always may.

    Returns:
        (z, y, x), uint8, or int16 if a value is above 255.

    Raises:
        InputError: the file is broken, does not hold labels, does not lie on the scan's grid, or holds other values.
    """
    image, stored = _load(path, what="label map")
    if like is not None:
        _check_same_grid(stored.shape, image.affine, like, path)
    # Labels are few: values are checked, scaled and compared once per value, not once per voxel.
    values = np.unique(stored)
    labels = values.astype(np.float64) * float(image.dataobj.slope) + float(image.dataobj.inter)
    wrong = [value for value in labels.tolist() if not (0 <= value <= 32767 and value == round(value))]
    if wrong:
        raise InputError(
            f"{path}: a label map holds whole numbers from 0 to 32767, but this file holds {_some(wrong)}; "
            "is it an image or a probability map?"
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


def scan_from_array(hu: np.ndarray, *, affine: np.ndarray) -> Scan:
    """Makes a Scan in memory, stored as int16 HU when written.

    Args:
        hu: (z, y, x), HU.
        affine: 4 x 4, from indices (x, y, z) to RAS+ mm.

    Raises:
        InputError: the affine is sheared or singular, or its spacing is outside 0.1 to 20 mm.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(hu.shape[::-1])
    header.set_slope_inter(1.0, 0.0)
    header.set_xyzt_units("mm")
    affine = np.asarray(affine, np.float64)
    _check_affine(affine, "affine")
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    return Scan(np.asarray(hu, np.float32), _spacing_mm(affine), affine, header)


def write_ct(path: str | os.PathLike, hu: np.ndarray, like: Scan, *, description: str | None) -> None:
    """Writes a CT scan on the grid of `like`, with its on-disk dtype, slope and intercept.

    A voxel whose HU equals that of `like` keeps its stored value bit for bit. Other values are rounded to the nearest
    that the dtype and slope can store, and clipped to what they can hold. The file appears whole or not at all.

    Args:
        path: .nii or .nii.gz; its folder is made.
        hu: (z, y, x), HU, finite.
        like: the scan that gives geometry and storage. If it was stored as float64 or with more than 16 bits, its
            file is read again, because float32 HU do not hold such values exactly.
        description: for the header's `descrip`, ASCII, at most 79 bytes; None keeps that of `like`.

    Raises:
        InputError: the suffix is not NIfTI's, or the file cannot be written, for instance on a full disk.
        ValueError: shape, values or description do not fit.
    """
    if hu.shape != like.hu.shape:
        raise ValueError(f"hu has the shape {hu.shape}, the scan has {like.hu.shape}")
    if not np.isfinite(hu).all():
        raise ValueError("hu holds NaN or infinite values")
    header = like.header.copy()
    if description is not None:
        if not description.isascii() or len(description) > MAX_DESCRIPTION_BYTES:
            raise ValueError(f"description must be ASCII of at most {MAX_DESCRIPTION_BYTES} bytes, got {description!r}")
        header["descrip"] = description.encode("ascii")
    dtype = header.get_data_dtype()
    slope, intercept = (float(number) for number in header.get_slope_inter())
    original = None if _float32_holds(dtype, slope, like.hu) else _load(like.path, what="CT scan")[1]
    stored = np.empty(hu.shape[::-1], dtype, order="F")
    for z in range(len(hu)):
        plane = (hu[z].astype(np.float64) - intercept) / slope
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            plane = np.clip(np.rint(plane), limits.min, limits.max)
        stored[:, :, z] = plane.T
        if original is not None:
            unchanged = (hu[z] == like.hu[z]).T
            stored[unchanged, z] = original[unchanged, z]
    _save(path, stored, header)


def write_labels(path: str | os.PathLike, labels: np.ndarray, like: Scan) -> None:
    """Writes a label map on the grid of `like`, as uint8, or int16 if a label is above 255; whole or not at all.

    Args:
        path: .nii or .nii.gz; its folder is made.
        labels: (z, y, x), integers or booleans from 0 to 32767.
        like: the scan that gives the geometry.

    Raises:
        InputError: the suffix is not NIfTI's, or the file cannot be written, for instance on a full disk.
        ValueError: shape, dtype or values do not fit.
    """
    if labels.shape != like.hu.shape:
        raise ValueError(f"labels have the shape {labels.shape}, the scan has {like.hu.shape}")
    if labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() > 32767:
        raise ValueError(f"labels must be integers from 0 to 32767, got {labels.dtype}, {labels.min()}..{labels.max()}")
    dtype = np.uint8 if labels.max() <= 255 else np.int16
    header = like.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1.0, 0.0)
    header["descrip"] = b""
    header["cal_min"] = header["cal_max"] = 0
    _save(path, labels.T.astype(dtype), header)


def _load(path: str | os.PathLike, *, what: str) -> tuple[nib.Nifti1Image, np.ndarray]:
    """The image and its stored values (x, y, z), after the checks that are the same for scans and label maps."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; expected a {what} as .nii or .nii.gz")
    if path.is_dir() or not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: expected a {what} as one .nii or .nii.gz file")
    try:
        image = nib.load(path)
        dtype = image.get_data_dtype()
        if dtype.fields or dtype.kind not in "iuf":
            raise InputError(f"{path}: voxels are of type {dtype} (colour or complex); expected one number per voxel")
        stored = np.asarray(image.dataobj.get_unscaled())
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, OSError, EOFError, zlib.error) as e:
        raise InputError(f"{path}: cannot be read as NIfTI ({e}); it may be truncated or of another format") from e
    except ValueError as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{path}: cannot be read as NIfTI ({e}); it may be truncated or of another format") from e
    if stored.ndim == 4 and stored.shape[3] == 1:
        stored = stored[..., 0]
    if stored.ndim != 3:
        raise InputError(
            f"{path}: expected a three-dimensional image, got the shape {stored.shape}; split time points or channels "
            "into files of their own"
        )
    if min(stored.shape) < MIN_VOXELS_PER_AXIS:
        raise InputError(
            f"{path}: {stored.shape} voxels (x, y, z); expected at least {MIN_VOXELS_PER_AXIS} along every axis, "
            "since tumors are three-dimensional: give the whole scan, not a slice"
        )
    _check_affine(image.affine, path)
    zooms = np.asarray(image.header.get_zooms()[:3], np.float64)
    spacing_mm = np.asarray(_spacing_mm(image.affine))[::-1]
    if not np.allclose(zooms, spacing_mm, rtol=0.01):
        raise InputError(
            f"{path}: the header's pixdim gives a spacing of {_mm(zooms)}, its affine {_mm(spacing_mm)}; programs "
            "would disagree on sizes: rewrite the header"
        )
    return image, stored


def _check_affine(affine: np.ndarray, where: object) -> None:
    if not np.isfinite(affine).all():
        raise InputError(f"{where}: the affine holds NaN or infinite values; rewrite the header")
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_LIMITS_MM
    if not np.all((spacing_mm >= low) & (spacing_mm <= high)):
        raise InputError(
            f"{where}: the spacing is {_mm(spacing_mm)} (x, y, z); expected {low} to {high} mm along every axis: "
            "correct the header (is it in m or um?)"
        )
    axes = affine[:3, :3] / spacing_mm
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > 0.01:
        raise InputError(
            f"{where}: the affine is sheared or singular (two axes have an angle of "
            f"{np.degrees(np.arccos(min(cosines.max(), 1.0))):.1f} degrees, expected 90), as from a tilted gantry: "
            "resample the scan to a rectangular grid"
        )


def _check_hu(hu: np.ndarray, path: str | os.PathLike) -> None:
    """Refuses what cannot be HU. Crops without air, any padding value and any contrast phase must pass."""
    low, high = float(hu.min()), float(hu.max())
    seen = f"{path}: the values run from {low:g} to {high:g}"
    if high - low < 100:
        raise InputError(f"{seen}, less than 100 HU apart; normalized or constant images are not CT in HU: give the CT")
    if low < -32768 or high > 32767:
        raise InputError(f"{seen}; CT in HU lies within -32768 to 32767: is this another modality?")
    if low >= 0 and (high > 1000 or np.count_nonzero(hu < 10) > 0.001 * hu.size):
        raise InputError(
            f"{seen}; CT in HU has fat near -100 and air near -1000, but no voxel here is below 0: give HU, not grey "
            "values from 0 to 255, nor stored values without their intercept (often -1024)"
        )
    tissue = np.count_nonzero((hu > -200) & (hu < 400)) / hu.size
    if tissue < 0.01:
        raise InputError(
            f"{seen}, but {100 * tissue:.2g} % of the voxels are soft tissue (-200 to 400 HU); expected at least 1 %: "
            "check slope and intercept"
        )


def _check_same_grid(shape: tuple[int, ...], affine: np.ndarray, like: Scan, path: str | os.PathLike) -> None:
    expected, ct = like.hu.shape[::-1], like.path or "the CT"
    orientation, expected_orientation = ("".join(nib.aff2axcodes(a)) for a in (affine, like.affine))
    if orientation != expected_orientation:
        raise InputError(
            f"{path}: stored in the orientation {orientation}, but {ct} in {expected_orientation}; bring the label map "
            "onto the CT's own voxel grid"
        )
    if shape != expected:
        raise InputError(f"{path}: {shape} voxels (x, y, z), but {ct} has {expected}; resample it to the CT's grid")
    corners = np.array([(*index, 1) for index in itertools.product(*((0, n - 1) for n in shape))])
    shift_mm = np.linalg.norm((corners @ (affine - like.affine).T)[:, :3], axis=1).max()
    if shift_mm > GEOMETRY_TOLERANCE_VOXELS * min(like.spacing_mm):
        raise InputError(
            f"{path}: lies up to {shift_mm:.3g} mm away from {ct} (affines differ); resample it to the CT's grid, or "
            "copy the CT's header if the voxels do correspond"
        )


def _float32_holds(dtype: np.dtype, slope: float, hu: np.ndarray) -> bool:
    """Whether float32 HU lead back to the stored value without doubt."""
    if dtype.kind == "f":
        return dtype.itemsize == 4 and slope == 1.0
    return dtype.itemsize <= 2 and float(np.spacing(np.abs(hu).max())) < 0.25 * abs(slope)


def _save(path: str | os.PathLike, stored: np.ndarray, header: nib.Nifti1Header) -> None:
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: expected a file name that ends in .nii.gz or .nii")
    image_type = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = image_type(stored, None, header)
    # Without an affine nibabel keeps qform and sform; with the scaling set after construction, it stores values as is.
    image.header.set_slope_inter(*header.get_slope_inter())
    try:
        with atomic_path(path) as temporary:
            nib.save(image, temporary)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); nothing was left there") from error


def _spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


def _mm(spacing_mm: np.ndarray) -> str:
    return " x ".join(f"{float(number):.4g}" for number in spacing_mm) + " mm"


def _some(values: Collection[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in itertools.islice(values, 12))
    return shown + (f", ... ({len(values)} in all)" if len(values) > 12 else "") if values else "none"
