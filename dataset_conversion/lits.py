"""LiTS as distributed: volume-N.nii and segmentation-N.nii, anywhere below the folder; liver is 1, liver_tumor is 2.

A segmentation whose header was never set is taken voxel for voxel. In every case the liver must look like a liver in
the CT: a flipped mask does not.
"""

import argparse
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor.ct import Scan, ScanHeader, check_labels_header, read_ct, read_ct_header, read_labels
from nnunet_difftumor.ct.geometry import is_header_unset
from nnunet_difftumor.ct.images import load_header
from nnunet_difftumor.dataset_conversion.checks.organs import check_one_tissue
from nnunet_difftumor.dataset_conversion.raw_dataset import RawCase, SourceCase, write_raw_dataset
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import check_folder

# Values in the files and in the dataset.
LABELS = {"background": 0, "liver": 1, "liver_tumor": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Has no arguments of its own."""


def convert(
    input_folder: str | Path,
    dataset_id: int,
    *,
    name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    spacing_mm: Sequence[float] | None = None,
) -> Path:
    """Makes a raw dataset from the training part of LiTS. Cases are named lits_000 and so on, after the volumes.

    Args:
        input_folder: with volume-N.nii and segmentation-N.nii, or .nii.gz, in it or in sub-folders.
        dataset_id: 1 to 999.
        name: name of the dataset; by default LiTS.
        overwrite: replaces the dataset if it exists.
        dry_run: only say what would be done, as far as headers show it.
        spacing_mm: voxel size (z, y, x) of scans whose header was never set; without it they are rejected.

    Returns:
        The dataset's folder.

    Raises:
        InputError: there is no volume, or no case is good.
    """
    input_folder = Path(input_folder).absolute()
    check_folder(input_folder, "expected that of LiTS, with volume-N.nii and segmentation-N.nii in it or below")
    volumes, segmentations = _numbered(input_folder, "volume"), _numbered(input_folder, "segmentation")
    if not volumes:
        raise InputError(
            f"{input_folder}: no volume-N.nii or volume-N.nii.gz in it or in its sub-folders; expected LiTS as it "
            "comes out of the archives (for Task03_Liver use `difftumor convert msd`)"
        )
    cases = {}
    for number in sorted(volumes):
        files = volumes[number], segmentations.get(number, [])
        load, look = (functools.partial(how, *files, spacing_mm=spacing_mm) for how in (_load, _look))
        cases[f"lits_{number:03d}"] = SourceCase(load, look, files=(*files[0], *files[1]))
    return write_raw_dataset(
        cases,
        dataset_id,
        name="LiTS" if name is None else name,
        labels=LABELS,
        settings={"spacing_mm": spacing_mm},
        overwrite=overwrite,
        dry_run=dry_run,
        about={
            "description": "LiTS, the Liver Tumor Segmentation Benchmark",
            "reference": "https://competitions.codalab.org/competitions/17094",
            "license": "CC BY-NC-ND 4.0; see the challenge's site",
        },
    )


def _numbered(folder: Path, kind: str) -> dict[int, list[Path]]:
    """Files `kind-N.nii` or `.nii.gz` by N; macOS's `._` files are left out."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.rglob(f"{kind}-*.nii*")):
        match = re.fullmatch(rf"{kind}-(\d+)\.nii(\.gz)?", path.name)
        if match:
            found.setdefault(int(match[1]), []).append(path)
    return found


def _look(volumes: list[Path], segmentations: list[Path], *, spacing_mm: Sequence[float] | None) -> ScanHeader:
    volume, segmentation = _both(volumes, segmentations)
    scan = read_ct_header(volume, spacing_mm=spacing_mm)
    try:
        check_labels_header(segmentation, like=scan)
    except InputError:
        shape, affine, _ = load_header(segmentation, what="label map")
        if shape != scan.shape_xyz or not is_header_unset(affine, shape):
            raise
    return scan


def _both(volumes: list[Path], segmentations: list[Path]) -> tuple[Path, Path]:
    if len(volumes) > 1 or len(segmentations) != 1:
        files = ", ".join(map(str, volumes + segmentations))
        raise InputError(f"expected one volume and one segmentation, found {files}")
    return volumes[0], segmentations[0]


def _load(volumes: list[Path], segmentations: list[Path], *, spacing_mm: Sequence[float] | None) -> RawCase:
    volume, segmentation = _both(volumes, segmentations)
    scan = read_ct(volume, spacing_mm=spacing_mm)
    labels, note = _read_segmentation(segmentation, scan)
    _check_liver(labels, scan, segmentation)
    return RawCase(scan, labels, str(volume), note)


def _read_segmentation(path: Path, scan: Scan) -> tuple[np.ndarray, str]:
    """The labels, and a note if their header was not used."""
    declared = set(LABELS.values())
    try:
        return read_labels(path, like=scan, declared=declared), ""
    except InputError:
        labels = read_labels(path, declared=declared)
        if labels.shape != scan.hu.shape or not is_header_unset(nib.load(path).affine, labels.shape):
            raise
        return labels, "the segmentation's header was never set, its voxels were taken as those of the volume"


def _check_liver(labels: np.ndarray, scan: Scan, path: Path) -> None:
    if not labels.any():
        raise InputError(f"{path}: holds no liver")
    check_one_tissue(scan.hu, labels > 0, "liver", where=path)
