"""Writes CT scans and label maps on the grid of a scan, whole or not at all."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener

from nnunet_difftumor.ct.images import load_image
from nnunet_difftumor.ct.nifti import SUFFIXES
from nnunet_difftumor.ct.scan import Scan
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path

MAX_DESCRIPTION_BYTES = 79


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
    original = None if _float32_holds(dtype, slope, like.hu) else load_image(like.path, what="CT scan").stored
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
        # Closed here: nibabel leaves that to the garbage collector when the disk is full, which complains once more.
        with atomic_path(path) as temporary, ImageOpener(str(temporary), "wb") as stream:
            image.to_stream(stream)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); nothing was left there") from error
