"""Reads a NIfTI file to its last byte: header and stored voxels, and whether the file is whole."""

import gzip
import logging
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.imageglobals import logger

from nnunet_difftumor.ct.geometry import check_affine, check_header
from nnunet_difftumor.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
MIN_VOXELS_PER_AXIS = 4
# Voxels of an image, before memory is taken for them: a scan of a whole body has a quarter of it. The variable of the
# environment names another limit.
MOST_VOXELS, _LIMIT_NAME = 1 << 31, "DIFFTUMOR_MOST_VOXELS"
# No compressed byte of gzip becomes more.
_MOST_INFLATED = 1032
# At most so much is read of what follows the voxels.
_MOST_EXTRA_BYTES = 16 << 20
# By the size that the header gives itself: class, where vox_offset and scl_slope with scl_inter are, and their type.
_FORMATS: dict[int, tuple[type, int, int, str]] = {
    348: (nib.Nifti1Image, 108, 112, "f"),
    540: (nib.Nifti2Image, 168, 176, "d"),
}
_OFFSET_TYPES = {348: "f", 540: "q"}
# What the three libraries raise at files that are no NIfTI, or broken; gzip's errors are OSError and EOFError.
_UNREADABLE = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    zlib.error,
    struct.error,
    ValueError,
    OverflowError,
)


def load_nifti(path: Path) -> tuple[Any, np.ndarray]:
    """The image and its stored values (x, y, z), after the checks that are the same for scans and label maps.

    The voxels are read, and in the same pass the rest of the file, so that the checksum and length that gzip keeps at
    the end of a stream are compared. Trailing axes of length 1 are dropped.

    Args:
        path: .nii or .nii.gz.

    Raises:
        InputError: the file is damaged, not a three-dimensional real image, has less than 4 voxels along an axis, or a
            header that programs understand otherwise.
    """
    image, stored = read_to_the_end(path)
    stored = check_shape(stored, path)
    check_affine(image.affine, path)
    check_header(image.header, image.affine, path)
    return image, stored


def load_nifti_header(path: Path) -> Any:
    """The image, of which no voxel is read, after those checks of `load_nifti` that need none.

    Raises:
        InputError: as `load_nifti`, as far as the header shows it.
    """
    image = read_header(path)
    spatial_shape(image.shape, path)
    check_affine(image.affine, path)
    check_header(image.header, image.affine, path)
    return image


def check_shape(stored: np.ndarray, path: Path) -> np.ndarray:
    """The voxels (x, y, z) without trailing axes of length 1.

    Raises:
        InputError: they are not three-dimensional, or less than 4 along an axis.
    """
    shape = spatial_shape(stored.shape, path)
    return stored[(..., *(0,) * (stored.ndim - len(shape)))]


def spatial_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """A shape (x, y, z) without trailing axes of length 1. Errors are those of `check_shape`."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(
            f"{path}: expected a three-dimensional image, got the shape {shape}; split time points or channels "
            "into files of their own"
        )
    if min(shape) < MIN_VOXELS_PER_AXIS:
        raise InputError(
            f"{path}: {shape} voxels (x, y, z); expected at least {MIN_VOXELS_PER_AXIS} along every axis, "
            "since tumors are three-dimensional: give the whole scan, not a slice"
        )
    return shape


def read_to_the_end(path: Path) -> tuple[Any, np.ndarray]:
    """The image and its stored values, of any shape.

    Raises:
        InputError: the file is damaged or no NIfTI image of real numbers.
    """
    with _readable(path) as stream:
        return _read(stream, path)


def read_header(path: Path) -> Any:
    """The image, of any shape, of which no voxel is read. Errors are those of `read_to_the_end`, as far as it shows."""
    with _readable(path) as stream:
        return _image(stream, path)


@contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, not compressed any more; what libraries raise within becomes an InputError."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as stream:
            yield stream  # type: ignore[misc]
    except InputError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as NIfTI ({reason}); it is damaged, truncated or of another format: get it again"
        ) from error
    except MemoryError as error:
        raise InputError(f"{path}: there is not enough memory to read it; close other programs") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what nibabel logs of a header, which it raises as well, or corrects as the checks here know."""
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def check_size(voxels: int, nbytes: int, path: Path, *, compressed: bool) -> None:
    """Refuses what a header claims before memory is taken for it.

    Args:
        voxels: of the image.
        nbytes: of its voxels.
        path: of the file.
        compressed: by zlib or gzip.

    Raises:
        InputError: for more voxels than `MOST_VOXELS`, or more bytes than the file can hold.
    """
    limit = os.environ.get(_LIMIT_NAME, "")
    if limit and not limit.isdecimal():
        raise InputError(f"{_LIMIT_NAME} is {limit!r}, expected a number of voxels")
    most = int(limit) if limit else MOST_VOXELS
    if voxels > most:
        raise InputError(
            f"{path}: its header says {voxels} voxels, expected at most {most}; if that is right, set {_LIMIT_NAME} to "
            "more"
        )
    size = path.stat().st_size
    if nbytes > size * (_MOST_INFLATED if compressed else 1):
        raise InputError(
            f"{path}: its header says {nbytes} bytes of voxels, which a file of {size} bytes cannot hold; it is "
            "damaged or truncated: get it again"
        )


def _image(stream: BinaryIO, path: Path) -> Any:
    image_type = _checked_type(stream, path)
    stream.seek(0)
    with _quiet():
        image = image_type.from_stream(stream)
    dtype = image.get_data_dtype()
    if dtype.fields or dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels are of type {dtype} (colour or complex); expected one number per voxel")
    if any(size < 1 for size in image.shape):
        raise InputError(f"{path}: its header says a shape of {image.shape}; it is damaged: get it again")
    voxels = math.prod(image.shape)
    check_size(voxels, voxels * dtype.itemsize, path, compressed=path.name.endswith(".gz"))
    return image


def _read(stream: BinaryIO, path: Path) -> tuple[Any, np.ndarray]:
    image = _image(stream, path)
    stored = np.asarray(image.dataobj.get_unscaled())
    # Voxels of a file that is not compressed are mapped, not read.
    stream.seek(image.dataobj.offset + stored.nbytes)
    more = 0
    while more < _MOST_EXTRA_BYTES and (block := stream.read(1 << 20)):
        more += len(block)
    if more:
        beyond = f"{more} bytes more" if more < _MOST_EXTRA_BYTES else "many bytes more"
        raise InputError(
            f"{path}: holds {beyond} than the header's {image.shape} voxels; the header is wrong, or the file "
            "was damaged: get it again"
        )
    return image, stored


def _checked_type(stream: BinaryIO, path: Path) -> type:
    """The class of the file, after what nibabel corrects or leaves out in silence, and ITK reads otherwise."""
    start = stream.read(540)
    order, size = next(
        ((order, n) for order in ("little", "big") if (n := int.from_bytes(start[:4], order)) in _FORMATS), ("", 0)
    )
    if not size or len(start) < size:
        raise InputError(f"{path}: cannot be read as NIfTI (no such header); it is damaged or of another format")
    image_type, offset_at, scaling_at, number = _FORMATS[size]
    order = {"little": "<", "big": ">"}[order]
    (offset,) = struct.unpack_from(f"{order}{_OFFSET_TYPES[size]}", start, offset_at)
    if offset < size:
        raise InputError(
            f"{path}: the header says that voxels begin at byte {offset:g}, inside of the header of {size} bytes; "
            "programs would read other voxels: rewrite the header"
        )
    slope, intercept = struct.unpack_from(f"{order}2{number}", start, scaling_at)
    if slope == 0 and np.isfinite(intercept) and intercept != 0:
        raise InputError(
            f"{path}: scl_slope is 0, but scl_inter {intercept:g}; ITK adds it and nibabel does not: set scl_slope to "
            "1 if it is to be added, else scl_inter to 0"
        )
    return image_type
