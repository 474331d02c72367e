"""Scans in a folder without any label: image files, folders with ct.nii.gz, and DICOM series, wherever they lie."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from nnunet_difftumor.ct.dicom.series import read_series
from nnunet_difftumor.ct.dicom.study import has_dicom, is_study, series_in
from nnunet_difftumor.ct.images import FORMATS, IMAGE_SUFFIXES, in_any_format, stem_of
from nnunet_difftumor.ct.reading import read_ct
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import check_folder

_FIRST_CHANNEL = "_0000"
_LONGEST_NAME = 100


def find_scans(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each scan below a folder, by a name made of their path; one image file, those of a DICOM series.

    Raises:
        InputError: if there is no folder, no scan in it, or two of one name.
    """
    check_folder(folder, f"give one with image files ({FORMATS}) or DICOM series")
    found: dict[str, tuple[Path, ...]] = {}
    for below, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = Path(below)
        scans = [here / name for name in sorted(files) if name.endswith(IMAGE_SUFFIXES) and not name.startswith(".")]
        for path in scans:
            _add(found, _name_of(path, folder), (path,), folder)
        if not scans and has_dicom(here):
            series = series_in(here)
            stem = plain_case_name(str(here.relative_to(folder))) if here != folder else folder.name
            for number, slices in enumerate(series):
                name = stem if len(series) == 1 else f"{stem}_series{number}"
                _add(found, name, tuple(slices), folder)
    if not found:
        raise InputError(f"{folder}: neither images ({FORMATS}) nor DICOM files in this folder or below")
    return found


def read_scan(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """A scan that `find_scans` found.

    Returns:
        HU, float32 (z, y, x), and the affine, 4 x 4, from these indices to RAS+ mm.

    Raises:
        InputError: as `read_ct` and `read_series`.
    """
    if not files[0].name.endswith(IMAGE_SUFFIXES):
        return read_series(files)
    scan = read_ct(files[0])
    return scan.hu, np.asarray(scan.affine, float)[:, [2, 1, 0, 3]]


def scan_of_case(folder: Path, name: str) -> Path:
    """The CT of a case's sub-folder, whether it is there or not.

    Args:
        folder: of the case.
        name: of a file or folder in it.

    Returns:
        What has this name, or a file of the same name in another format; else the sub-folder itself, if DICOM files lie
        in it or below.

    Raises:
        InputError: there are several files of other formats.
    """
    path = in_any_format(folder / name)
    return folder if not path.exists() and folder.is_dir() and is_study(folder) else path


def plain_case_name(name: str) -> str:
    """As a file's name: letters, digits, `_` and `-`; a long one is cut, with what tells it from others."""
    plain = re.sub(r"[^\w-]+", "_", name).strip("_-") or "scan"
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 9]}_{crc32(name.encode()):08x}"


def _add(found: dict[str, tuple[Path, ...]], name: str, files: tuple[Path, ...], folder: Path) -> None:
    if name in found:
        raise InputError(f"{folder}: {files[0]} and {found[name][0]} would both be named {name}; rename one of them")
    found[name] = files


def _name_of(path: Path, folder: Path) -> str:
    """case.nii.gz is case, case_0000.nii.gz too, and so is case/ct.nii.gz."""
    stem = stem_of(path)
    within = path.parent.relative_to(folder)
    parts = within.parts if stem == "ct" and within.parts else (*within.parts, stem.removesuffix(_FIRST_CHANNEL))
    return plain_case_name("_".join(parts))
