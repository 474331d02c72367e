"""What KiTS19 and KiTS23 have in common: case_NNNNN/imaging.nii.gz and segmentation.nii.gz, regions as in nnU-Net.

nnU-Net's own converter of KiTS23 gives the regions, their order and the reader, which brings the slices, stored along
the first axis, into the usual order.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.ct import ScanHeader, check_labels_header, read_ct, read_ct_header, read_labels
from nnunet_difftumor.dataset_conversion.raw_dataset import RawCase, SourceCase, write_raw_dataset
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import check_folder


def convert_kits(
    input_folder: str | Path,
    dataset_id: int,
    *,
    name: str,
    labels: Mapping[str, int | Sequence[int]],
    overwrite: bool,
    about: Mapping[str, Any],
    spacing_mm: Sequence[float] | None,
    dry_run: bool,
) -> Path:
    """Makes a raw dataset from a KiTS challenge.

    Args:
        input_folder: with case_NNNNN/imaging.nii.gz and segmentation.nii.gz; the clone of the challenge's repository,
            with its `data` or `dataset` folder, will do.
        dataset_id: 1 to 999.
        name: name of the dataset.
        labels: regions by name, in which the last values win.
        overwrite: replaces the dataset if it exists.
        about: for dataset.json; with regions_class_order.
        spacing_mm: voxel size (z, y, x) of scans whose header was never set; without it they are rejected.
        dry_run: only say what would be done, as far as headers show it.

    Returns:
        The dataset's folder.

    Raises:
        InputError: there is no case, or none is good.
    """
    input_folder = Path(input_folder).absolute()
    check_folder(input_folder, "expected that of KiTS, with case_NNNNN folders in it")
    folders = []
    for parent in (input_folder, input_folder / "dataset", input_folder / "data"):
        folders = folders or sorted(path for path in parent.glob("case_[0-9]*") if path.is_dir())
    if not folders:
        raise InputError(
            f"{input_folder}: no case_NNNNN folders in it, nor in its `dataset` or `data`; expected the data of KiTS"
        )
    declared = {value for values in labels.values() for value in (values if isinstance(values, tuple) else (values,))}
    cases = {}
    for folder in folders:
        files = (folder / "imaging.nii.gz", folder / "segmentation.nii.gz")
        load = functools.partial(_load, *files, declared=declared, spacing_mm=spacing_mm)
        cases[folder.name] = SourceCase(load, functools.partial(_look, *files, spacing_mm=spacing_mm), files=files)
    return write_raw_dataset(
        cases,
        dataset_id,
        name=name,
        labels=labels,
        settings={"spacing_mm": spacing_mm},
        overwrite=overwrite,
        about={"overwrite_image_reader_writer": "NibabelIOWithReorient", **about},
        dry_run=dry_run,
    )


def _look(image: Path, segmentation: Path, *, spacing_mm: Sequence[float] | None) -> ScanHeader:
    _check_there(image, segmentation)
    scan = read_ct_header(image, spacing_mm=spacing_mm)
    check_labels_header(segmentation, like=scan)
    return scan


def _load(image: Path, segmentation: Path, *, declared: set[int], spacing_mm: Sequence[float] | None) -> RawCase:
    _check_there(image, segmentation)
    scan = read_ct(image, spacing_mm=spacing_mm)
    labels = read_labels(segmentation, like=scan, declared=declared)
    if not labels.any():
        raise InputError(f"{segmentation}: holds no kidney")
    return RawCase(scan, labels, str(image))


def _check_there(image: Path, segmentation: Path) -> None:
    if image.exists() and not segmentation.exists():
        raise InputError(f"{segmentation}: no such file; the challenges keep the segmentations of their test cases")
