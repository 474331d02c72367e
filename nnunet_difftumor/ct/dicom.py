"""Reads CT series from DICOM files, through SimpleITK (GDCM), which comes with nnU-Net."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct.geometry import check_affine
from nnunet_difftumor.ct.hounsfield import check_hu
from nnunet_difftumor.ct.nifti import check_size
from nnunet_difftumor.errors import InputError

_MARK, _MARK_AT = b"DICM", 128
_MODALITY, _POSITION = "0008|0060", "0020|0032"
# Distances between slices may differ by this share: positions are stored as decimal text.
_UNEVEN = 0.02
_LEAST_SLICES = 4


def has_dicom(folder: Path) -> bool:
    """Whether any file of a folder, not of those below, is DICOM."""
    return any(_is_dicom(path) for path in sorted(folder.iterdir()) if path.is_file())


def series_in(folder: Path) -> list[list[Path]]:
    """The files of each series of a folder, in the order of their slices."""
    import SimpleITK

    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return [
        [Path(file) for file in SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name)]
        for name in sorted(names)
    ]


def read_series(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """A CT series in HU.

    Args:
        files: in the order of their slices, as `series_in` gives them.

    Returns:
        float32 (z, y, x), and the affine, 4 x 4, from these indices to RAS+ mm.

    Raises:
        InputError: for damaged or too large files, another modality than CT, fewer than 4 slices, slices that are
            missing or of another kind, a tilted gantry, or values that cannot be HU.
    """
    import SimpleITK

    where = files[0].parent
    if len(files) < _LEAST_SLICES:
        raise InputError(f"{where}: the series has {len(files)} slices, expected at least {_LEAST_SLICES}")
    first = SimpleITK.ImageFileReader()
    first.SetFileName(str(files[0]))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    reader.MetaDataDictionaryArrayUpdateOn()
    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # of uneven slices, which are looked at here
    try:
        first.ReadImageInformation()
        check_size(math.prod(first.GetSize()) * len(files), 0, files[0], compressed=True)
        image = reader.Execute()
        modality = reader.GetMetaData(0, _MODALITY).strip()
        positions = np.array(
            [[float(v) for v in reader.GetMetaData(i, _POSITION).split("\\")] for i in range(len(files))]
        )
    except (RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()[-1]
        raise InputError(f"{where}: the DICOM series of {len(files)} files cannot be read ({said})") from error
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(before)
    if modality != "CT":
        raise InputError(f"{where}: the series is of modality {modality}, expected CT")
    gaps_mm = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual_mm = float(np.median(gaps_mm))
    if usual_mm <= 0 or (np.abs(gaps_mm - usual_mm) > _UNEVEN * usual_mm).any():
        raise InputError(
            f"{where}: slices lie {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm apart; some are missing, twice there, "
            "or of another series: give the whole series, or convert it to NIfTI"
        )
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    if hu.ndim != 3:
        raise InputError(f"{where}: the series has colours; expected one value per voxel")
    check_hu(hu, where)
    # DICOM's axes are left, posterior, superior.
    direction = np.reshape(image.GetDirection(), (3, 3)) * [[-1], [-1], [1]]
    affine = np.eye(4)
    affine[:3, :3] = (direction * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = np.array(image.GetOrigin()) * [-1, -1, 1]
    # SimpleITK takes slices as lying at right angles to their planes; where they do not, the affine would be wrong.
    affine[:3, 0] = (positions[-1] - positions[0]) / (len(files) - 1) * [-1, -1, 1]
    check_affine(affine, where)
    return hu, affine


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError:
        return False
