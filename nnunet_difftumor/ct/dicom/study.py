"""Which DICOM series a folder holds, and the one of them that is the CT scan."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct.dicom.series import Series, number_of, read_headers, read_series, uid_of
from nnunet_difftumor.ct.geometry import rectangular_affine
from nnunet_difftumor.ct.scan import Scan, scan_from_array
from nnunet_difftumor.errors import InputError

_MARK, _MARK_AT = b"DICM", 128
# Of the class CT Image Storage, in the first tags of a file.
_CT_CLASS, _FIRST_TAGS = b"1.2.840.10008.5.1.4.1.1.2\0", 512


def has_dicom(folder: Path) -> bool:
    """Whether any file of a folder, not of those below, is DICOM."""
    return next(_dicom_files(folder), None) is not None


def is_study(folder: Path) -> bool:
    """Whether there is a DICOM file in a folder or below."""
    return any(has_dicom(here) for here in _folders(folder))


def series_in(folder: Path) -> list[list[Path]]:
    """The files of each series of a folder, not of those below.

    CT slices that are damaged stand at the end of every series: reading it says so. Other objects, such as dose
    reports, are left out.
    """
    found: dict[str, list[Path]] = {}
    damaged: list[Path] = []
    slices = set(_dicom_files(folder, of_class=_CT_CLASS))
    # Not by GDCM's search of a folder, which opens whatever lies there, however long it says that it is.
    for file in _dicom_files(folder):
        try:
            found.setdefault(uid_of(file), []).append(file)
        except InputError:
            if file in slices:
                damaged.append(file)
    return [found[uid] + damaged for uid in sorted(found)] or ([damaged] if damaged else [])


def files_of_study(folder: Path) -> list[Path]:
    """Every DICOM file in a folder and below, in the order of their paths."""
    return [path for here in _folders(folder) for path in _dicom_files(here)]


def choose_series(folder: Path) -> tuple[Series, str]:
    """The one CT series in a folder or below that is a whole scan, and a line on those that are none.

    Overviews, single slices, dose reports and other modalities are left out.

    Raises:
        InputError: there is none, or several; each is named, with its number and what is wrong with it.
    """
    fitting: list[Series] = []
    others: list[InputError] = []
    left_out: list[str] = []
    for here in _folders(folder):
        for files in series_in(here) if has_dicom(here) else ():
            try:
                fitting.append(read_headers(files))
            except InputError as error:
                others.append(error)
                left_out.append(f"{_number(files)} ({error})")
    if len(fitting) == 1:
        return fitting[0], f"taken is {_told(fitting[0])}; left out: {'; '.join(left_out)}" if left_out else ""
    if fitting:
        told = "; ".join(f"{_told(series)} in {series.files[0].parent}" for series in fitting)
        raise InputError(
            f"{folder}: {len(fitting)} CT series could be meant: {told}; put the files of one into a folder of their "
            "own"
        )
    if len(others) == 1:
        raise others[0]
    if not others:
        raise InputError(f"{folder}: no DICOM file is in it or below; give a CT scan as one file, or a DICOM series")
    raise InputError(f"{folder}: no CT series is a whole scan; {'; '.join(left_out)}")


def read_study(folder: Path) -> Scan:
    """The CT scan of a folder with DICOM files, in it or below; stored as int16, or float32 where HU have fractions.

    Raises:
        InputError: as `choose_series` and `read_series`.
    """
    series, note = choose_series(folder)
    hu, affine = read_series(series.files)
    affine = rectangular_affine(affine[:, [2, 1, 0, 3]], hu.shape[::-1], folder)
    whole = bool((hu == np.rint(hu)).all() and np.abs(hu).max() <= np.iinfo(np.int16).max)
    scan = scan_from_array(hu, affine=affine, dtype=np.int16 if whole else np.float32)
    return replace(scan, path=folder, note=note)


def sha256_of_scan(path: Path) -> str:
    """Hexadecimal hash of a scan's file; of DICOM that of the hashes of its slices in their order.

    Raises:
        InputError: it cannot be read, or as `choose_series`.
    """
    return _of_all(choose_series(path)[0].files) if path.is_dir() else _sha256(path)


def sha256_of_content(path: Path) -> str:
    """Hexadecimal hash of a file; of a folder that of its DICOM files and of those below, whatever their names.

    Raises:
        InputError: it cannot be read.
    """
    return _of_all(files_of_study(path), in_order=False) if path.is_dir() else _sha256(path)


def _of_all(files: Sequence[Path], *, in_order: bool = True) -> str:
    hashes = [_sha256(file) for file in files]
    return hashlib.sha256("".join(hashes if in_order else sorted(hashes)).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an existing file") from error


def _number(files: Sequence[Path]) -> str:
    return f"series {number_of(files[0]) or 'without a number'}"


def _told(series: Series) -> str:
    """A series for messages; without its description, which is free text and may name the patient."""
    z, y, x = series.shape
    apart_mm = np.linalg.norm(series.affine[:3, 0])
    return f"{_number(series.files)} of {z} slices, {x} x {y} voxels, {apart_mm:.3g} mm apart"


def _folders(folder: Path) -> Iterator[Path]:
    """A folder and those below, without hidden ones."""
    for here, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield Path(here)


def _dicom_files(folder: Path, *, of_class: bytes = b"") -> Iterator[Path]:
    """Those in a folder, not below it; of one class of objects, if it is said."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with suppress(OSError), open(path, "rb") as file:
                start = file.read(_FIRST_TAGS)
                if start[_MARK_AT : _MARK_AT + len(_MARK)] == _MARK and of_class in start:
                    yield path
