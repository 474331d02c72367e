"""Scans in a folder without any label: NIfTI files, folders with ct.nii.gz, and DICOM series, wherever they lie."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from nnunet_difftumor.ct.dicom import has_dicom, read_series, series_in
from nnunet_difftumor.ct.nifti import SUFFIXES
from nnunet_difftumor.ct.reading import read_ct
from nnunet_difftumor.errors import InputError

_FIRST_CHANNEL = "_0000"
_LONGEST_NAME = 100


def find_scans(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each scan below a folder, by a name made of their path; one file of NIfTI, those of a DICOM series.

    Raises:
        InputError: if there is no folder, no scan in it, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with NIfTI files or DICOM series")
    found: dict[str, tuple[Path, ...]] = {}
    for below, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = Path(below)
        scans = [here / name for name in sorted(files) if name.endswith(SUFFIXES) and not name.startswith(".")]
        for path in scans:
            _add(found, _name_of(path, folder), (path,), folder)
        if not scans and has_dicom(here):
            series = series_in(here)
            stem = plain_case_name(str(here.relative_to(folder))) if here != folder else folder.name
            for number, slices in enumerate(series):
                name = stem if len(series) == 1 else f"{stem}_series{number}"
                _add(found, name, tuple(slices), folder)
    if not found:
        raise InputError(f"{folder}: neither .nii, .nii.gz nor DICOM files in this folder or below")
    return found


def read_scan(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """A scan that `find_scans` found.

    Returns:
        HU, float32 (z, y, x), and the affine, 4 x 4, from these indices to RAS+ mm.

    Raises:
        InputError: as `read_ct` and `read_series`.
    """
    if not files[0].name.endswith(SUFFIXES):
        return read_series(files)
    scan = read_ct(files[0])
    return scan.hu, np.asarray(scan.affine, float)[:, [2, 1, 0, 3]]


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
    stem = next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))
    within = path.parent.relative_to(folder)
    parts = within.parts if stem == "ct" and within.parts else (*within.parts, stem.removesuffix(_FIRST_CHANNEL))
    return plain_case_name("_".join(parts))
