"""Reads one CT series of DICOM files, through SimpleITK (GDCM), which comes with nnU-Net.

Geometry is taken from the files' own tags, and everything that a grid of voxels cannot say is refused: GDCM and ITK
make a volume of anything.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct.dicom.lengths import check_lengths
from nnunet_difftumor.ct.geometry import check_affine
from nnunet_difftumor.ct.hounsfield import check_hu
from nnunet_difftumor.ct.nifti import check_size
from nnunet_difftumor.errors import InputError

_MODALITY, _SERIES, _NUMBER, _FRAMES = "0008|0060", "0020|000e", "0020|0011", "0028|0008"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
# Slices may lie off their places by this share of the distance between them: positions are stored as decimal text.
_UNEVEN = 0.02
# Cosines of the axes, likewise.
_TURNED = 1e-3
_LEAST_SLICES = 4
# DICOM's axes are left, posterior, superior.
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Series:
    """What the headers of a CT series say.

    Attributes:
        files: in the order of their slices.
        shape: voxels, (z, y, x).
        affine: 4 x 4, from indices (z, y, x) to RAS+ mm.
    """

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    affine: np.ndarray


def number_of(file: Path) -> str:
    """The number that the scanner gave to the series of a file; empty if it gave none."""
    try:
        return _tags(file).text(_NUMBER)
    except InputError:
        return ""


def uid_of(file: Path) -> str:
    """What the series of a file is known by; empty if it says none.

    Raises:
        InputError: the file is damaged, or no image.
    """
    return _tags(file).text(_SERIES)


def read_headers(files: Sequence[Path]) -> Series:
    """What the slices of a CT series say of themselves, checked to be one rectangular grid.

    Args:
        files: in any order.

    Raises:
        InputError: naming the folder or the file: damaged files, another modality than CT, fewer than 4 slices, slices
            that are missing, twice there, turned, or of another size, a tilted gantry, too many voxels.
    """
    where = files[0].parent
    first = _tags(files[0])
    if (modality := first.text(_MODALITY)) != "CT":
        raise InputError(f"{where}: the series is of modality {modality or 'unknown'}, expected CT")
    if (frames := first.text(_FRAMES)) not in ("", "1"):
        raise InputError(
            f"{files[0]}: has {frames} slices in one file (enhanced DICOM), which is not read; convert it to NIfTI"
        )
    if len(files) < _LEAST_SLICES:
        raise InputError(f"{where}: the series has {len(files)} slices, expected at least {_LEAST_SLICES}")
    check_size(math.prod(first.size) * len(files), 0, files[0], compressed=True)
    orientation, spacing_mm = first.numbers(_ORIENTATION, 6), first.numbers(_PIXEL_SPACING, 2)
    positions = np.empty((len(files), 3))
    for number, file in enumerate(files):
        tags = _tags(file)
        if tags.text(_MODALITY) != "CT":
            raise InputError(f"{file}: is of modality {tags.text(_MODALITY)}, expected CT; take it out of the series")
        if tags.size != first.size or not np.allclose(tags.numbers(_PIXEL_SPACING, 2), spacing_mm, rtol=1e-4):
            raise InputError(f"{file}: has pixels of another number or size than the first slice; {_ONE_SERIES}")
        if np.abs(tags.numbers(_ORIENTATION, 6) - orientation).max() > _TURNED:
            raise InputError(f"{file}: lies in another plane than the first slice; {_ONE_SERIES}")
        positions[number] = tags.numbers(_POSITION, 3)
    # GDCM orders slices otherwise where one of them is there twice.
    order = np.argsort(positions @ np.cross(orientation[:3], orientation[3:]), kind="stable")
    files, positions = [files[at] for at in order], positions[order]
    step = _step(positions, files)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([step, orientation[3:] * spacing_mm[0], orientation[:3] * spacing_mm[1]], axis=1)
    affine[:3, 3] = positions[0]
    affine[:3] *= _LPS_TO_RAS[:, None]
    check_affine(affine, where)
    return Series(tuple(files), (len(files), first.size[1], first.size[0]), affine)


def read_series(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """A CT series in HU, each slice by its own slope and intercept.

    Args:
        files: in any order.

    Returns:
        float32 (z, y, x), and the affine, 4 x 4, from these indices to RAS+ mm.

    Raises:
        InputError: as `read_headers`, and for voxels that cannot be read, or cannot be HU.
    """
    import SimpleITK

    series = read_headers(files)
    where = files[0].parent
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in series.files])
    # Otherwise the type of the first slice, which may have no fractions, is that of all.
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    try:
        with _quiet():  # of uneven slices, which were looked at
            hu = SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise InputError(f"{where}: the DICOM series of {len(files)} files cannot be read ({said})") from error
    if hu.shape != series.shape:
        raise InputError(f"{where}: the series has colours, or voxels of {hu.shape}; expected {series.shape}")
    if not np.isfinite(hu).all():
        raise InputError(f"{where}: voxels are NaN or infinite; the series is damaged: get it again")
    check_hu(hu, where)
    return hu, series.affine


_ONE_SERIES = "give the slices of one series only"


@dataclass(frozen=True)
class _Tags:
    """Header of one file.

    Attributes:
        file: whose header it is.
        values: text by tag.
        size: pixels, (x, y).
    """

    file: Path
    values: dict[str, str]
    size: tuple[int, int]

    def text(self, tag: str) -> str:
        return self.values.get(tag, "").strip().strip("\0")

    def numbers(self, tag: str, count: int) -> np.ndarray:
        """float64 of the length that is expected.

        Raises:
            InputError: they are not there, or no such numbers.
        """
        try:
            found = np.array([float(part) for part in self.text(tag).split("\\")])
        except ValueError:
            found = np.empty(0)
        if found.shape != (count,) or not np.isfinite(found).all():
            raise InputError(
                f"{self.file}: its tag ({tag.replace('|', ',')}) is {self.text(tag)!r}, expected {count} numbers; a "
                "slice without its place in space cannot be used"
            )
        return found


_READ = (_MODALITY, _SERIES, _NUMBER, _FRAMES, _POSITION, _ORIENTATION, _PIXEL_SPACING)


def _tags(file: Path) -> _Tags:
    import SimpleITK

    check_lengths(file)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        with _quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise InputError(f"{file}: cannot be read as DICOM ({said}); it is damaged: get it again") from error
    values = {tag: reader.GetMetaData(tag) for tag in _READ if reader.HasMetaDataKey(tag)}
    x, y = reader.GetSize()[:2]
    return _Tags(file, values, (x, y))


def _step(positions: np.ndarray, files: Sequence[Path]) -> np.ndarray:
    """From one slice to the next, in mm.

    Raises:
        InputError: naming the files between which it is another one.
    """
    gaps_mm = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual_mm = float(np.median(gaps_mm))
    for number in map(int, np.flatnonzero(np.abs(gaps_mm - usual_mm) > _UNEVEN * usual_mm)):
        below, above = files[number], files[number + 1]
        seen = (
            "lie at the same place; one of them is there twice, or of another series"
            if gaps_mm[number] <= _UNEVEN * usual_mm
            else f"lie {gaps_mm[number]:.2f} mm apart, and most slices {usual_mm:.2f} mm; some are missing, or of "
            "another series"
        )
        raise InputError(f"{below} and {above} {seen}: give the whole series, and nothing else")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    off_mm = np.linalg.norm(positions - positions[0] - np.arange(len(positions))[:, None] * step, axis=1)
    if usual_mm == 0 or off_mm.max() > _UNEVEN * usual_mm:
        worst = files[int(off_mm.argmax())]
        raise InputError(
            f"{worst}: lies {off_mm.max():.2f} mm off the line of the other slices; a volume needs slices that follow "
            "one another evenly: give another series"
        )
    return step


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ITK prints of its own."""
    import SimpleITK

    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(before)
