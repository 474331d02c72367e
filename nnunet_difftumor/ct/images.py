"""One image file as it is stored, in any format: NIfTI through nibabel; MetaImage and NRRD through SimpleITK."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from nnunet_difftumor.ct.geometry import check_affine, with_affine
from nnunet_difftumor.ct.nifti import (
    SUFFIXES,
    check_shape,
    check_size,
    load_nifti,
    load_nifti_header,
    read_header,
    spatial_shape,
)
from nnunet_difftumor.ct.whole_files import check_is_whole
from nnunet_difftumor.errors import InputError

# By suffix, ITK's reader.
_OF_ITK = {".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}
IMAGE_SUFFIXES = (*SUFFIXES, *_OF_ITK)
FORMATS = ".nii.gz, .nii, .mha or .nrrd"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class StoredImage(NamedTuple):
    """An image before its values are scaled.

    Attributes:
        stored: (x, y, z), real numbers.
        affine: 4 x 4, from indices (x, y, z) to RAS+ mm.
        header: that of the NIfTI file, or one that says the same of another file.
        slope, intercept: value = stored * slope + intercept.
    """

    stored: np.ndarray
    affine: np.ndarray
    header: nib.Nifti1Header
    slope: float
    intercept: float


class ImageHeader(NamedTuple):
    """Where an image lies.

    Attributes:
        shape: voxels (x, y, z).
        affine, header: as in `StoredImage`.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    header: nib.Nifti1Header


def load_image(path: Path, *, what: str) -> StoredImage:
    """Reads an image to the last byte of its file, after the checks that are the same for scans and label maps.

    Args:
        path: the file.
        what: it is expected to be, for messages.

    Raises:
        InputError: the file is missing, damaged, not a three-dimensional real image, has less than 4 voxels along an
            axis, or a header that programs understand otherwise.
    """
    _check_file(path, what)
    if path.name.endswith(SUFFIXES):
        image, stored = load_nifti(path)
        return StoredImage(stored, image.affine, image.header, float(image.dataobj.slope), float(image.dataobj.inter))
    return _load_by_itk(path)


def load_header(path: Path, *, what: str) -> ImageHeader:
    """Reads where an image lies, and none of its voxels, after those checks of `load_image` that need none.

    Raises:
        InputError: as `load_image`, as far as the header shows it.
    """
    _check_file(path, what)
    if path.name.endswith(SUFFIXES):
        image = load_nifti_header(path)
        return ImageHeader(spatial_shape(image.shape, path), image.affine, image.header)
    import SimpleITK

    reader = _itk_reader(SimpleITK, path)
    shape, affine = spatial_shape(reader.GetSize(), path), _affine_of(reader, path)
    return ImageHeader(shape, affine, with_affine(nib.Nifti1Header(), affine))


def stored_shape(path: Path) -> tuple[int, ...] | None:
    """Voxels (x, y, z) of an image by its header, without trailing axes of length 1; None in formats of others.

    Raises:
        InputError: the header cannot be read, or what it says cannot be.
    """
    if path.name.endswith(SUFFIXES):
        shape = read_header(path).shape
    elif path.suffix in _OF_ITK:
        import SimpleITK

        shape = _itk_reader(SimpleITK, path).GetSize()
    else:
        return None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)


def _check_file(path: Path, what: str) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file; expected a {what} as {FORMATS}")
    if path.is_dir() or not path.name.endswith(IMAGE_SUFFIXES):
        raise InputError(f"{path}: expected a {what} as one file ({FORMATS})")


def stem_of(path: Path) -> str:
    """The name of an image file without its suffix."""
    return next(path.name.removesuffix(suffix) for suffix in IMAGE_SUFFIXES if path.name.endswith(suffix))


def in_any_format(path: Path) -> Path:
    """The image of this name, or that of another format beside it; `path` itself if there is none, or it is no image.

    Raises:
        InputError: if it is not there itself, and there are several others.
    """
    if path.exists() or not path.name.endswith(IMAGE_SUFFIXES):
        return path
    others = [other for suffix in IMAGE_SUFFIXES if (other := path.with_name(stem_of(path) + suffix)).is_file()]
    if len(others) > 1:
        names = ", ".join(other.name for other in others)
        raise InputError(f"{path.parent}: has {names}, of which one was expected; keep one of them")
    return others[0] if others else path


def _load_by_itk(path: Path) -> StoredImage:
    import SimpleITK

    if not check_is_whole(path):
        raise InputError(
            f"{path}: its voxels lie in another file, or as text; write header and voxels into one {path.suffix} file"
        )
    reader = _itk_reader(SimpleITK, path)
    with _saying_what_itk_says(path):
        image = reader.Execute()
    stored, affine = check_shape(SimpleITK.GetArrayFromImage(image).T, path), _affine_of(image, path)
    header = nib.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header.set_slope_inter(1.0, 0.0)
    return StoredImage(stored, affine, with_affine(header, affine), 1.0, 0.0)


def _itk_reader(itk: Any, path: Path) -> Any:
    """ITK's reader of a file, which has read what the header says, and it can be."""
    reader = itk.ImageFileReader()
    reader.SetImageIO(_OF_ITK[path.suffix])
    reader.SetFileName(str(path))
    with _saying_what_itk_says(path):
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1 or reader.GetPixelID() in _complex(itk):
            raise InputError(f"{path}: has several numbers per voxel (colour or vectors); expected one")
        voxels = math.prod(reader.GetSize())
        check_size(voxels, voxels, path, compressed=True)
    return reader


@contextmanager
def _saying_what_itk_says(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{path}: cannot be read ({said}); it is damaged, truncated or of another format: get it again"
        ) from error


def _affine_of(image: Any, path: Path) -> np.ndarray:
    """From indices (x, y, z) to RAS+ mm, of an image of ITK's, or of a reader of one."""
    axes = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (axes, axes)) * image.GetSpacing())[:3, :3]
    affine[:3, 3] = image.GetOrigin()[:3]
    affine = _LPS_TO_RAS @ affine
    check_affine(affine, path)
    return affine


def _complex(itk) -> tuple[int, ...]:
    return itk.sitkComplexFloat32, itk.sitkComplexFloat64
