"""A CT task of the Medical Segmentation Decathlon, through nnU-Net's own converter, with every case checked after it.

-i is the extracted task folder, such as Task03_Liver (the LiTS challenge) or Task07_Pancreas.
"""

import argparse
import functools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nnunet_difftumor.ct import ScanHeader, check_labels_header, read_ct, read_ct_header, read_labels
from nnunet_difftumor.dataset_conversion.raw_dataset import (
    RawCase,
    SourceCase,
    dataset_folder,
    write_raw_dataset,
)
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import check_folder, scratch_folder
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.nnunet_folders import FOLDER_VARIABLES, RAW


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Has no arguments of its own."""


def convert(
    input_folder: str | Path,
    dataset_id: int,
    *,
    name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    processes: int = 2,
    spacing_mm: Sequence[float] | None = None,
) -> Path:
    """Makes a raw dataset from an MSD task with one channel, CT.

    nnU-Net's converter writes into a temporary folder in nnUNet_raw; from there the checked cases go into the dataset.
    It starts processes by spawning, so a script that calls this needs the `if __name__ == "__main__"` guard.

    Args:
        input_folder: the extracted task folder, TaskXX_Name.
        dataset_id: 1 to 999.
        name: name of the dataset; by default that of the task.
        overwrite: replaces the dataset if it exists.
        dry_run: only say what would be done, as far as headers show it.
        processes: for copying.
        spacing_mm: voxel size (z, y, x) of scans whose header was never set; without it they are rejected.

    Returns:
        The dataset's folder.

    Raises:
        InputError: the folder is not an MSD task of CT, or no case is good.
    """
    input_folder = Path(input_folder).absolute()
    task = _read_task(input_folder)
    name = input_folder.name.split("_")[1] if name is None else name
    # One that is there may be the one that is asked for.
    target = dataset_folder(dataset_id, name, overwrite=True)
    labels = {label: int(value) for value, label in task["labels"].items()}

    def write(converted: Path) -> Path:
        load = functools.partial(
            _load,
            converted=converted,
            declared=labels.values(),
            source=input_folder,
            spacing_mm=spacing_mm,
        )
        cases = {}
        for case in _case_names(input_folder):
            files = _source_files(input_folder, case)
            look = functools.partial(_look, *files, spacing_mm=spacing_mm)
            cases[case] = SourceCase(functools.partial(load, case), look, files=files)
        return write_raw_dataset(
            cases,
            dataset_id,
            name=name,
            labels=labels,
            settings={"spacing_mm": spacing_mm},
            overwrite=overwrite,
            about={
                "description": task.get("description", ""),
                "reference": task.get("reference", ""),
                "release": task.get("release", ""),
                "license": task.get("licence", "see the source of the images"),
            },
            test_images=converted / "imagesTs",
            dry_run=dry_run,
        )

    if dry_run:
        _check_headers(input_folder)
        return write(input_folder)
    with scratch_folder(target) as temporary:
        return write(_run_nnunets_converter(input_folder, temporary, processes))


def _case_names(folder: Path) -> list[str]:
    """Of the task's images, those that nnU-Net's converter takes."""
    names = (path.name.removesuffix(".nii.gz") for path in (folder / "imagesTr").glob("*.nii.gz") if path.is_file())
    return sorted(name for name in names if not name.startswith((".", "_")))


def _source_files(folder: Path, case: str) -> tuple[Path, Path]:
    return folder / "imagesTr" / f"{case}.nii.gz", folder / "labelsTr" / f"{case}.nii.gz"


def _read_task(folder: Path) -> dict:
    """The task's dataset.json, after checking what nnU-Net's converter asserts."""
    check_folder(folder, "expected the extracted folder of a task, such as Task03_Liver")
    if not re.fullmatch(r"Task\d+_[^_]+", folder.name):
        raise InputError(f"{folder}: expected a folder named like Task03_Liver, as it comes out of the archive")
    missing = [part for part in ("imagesTr", "labelsTr", "imagesTs", "dataset.json") if not (folder / part).exists()]
    if missing:
        raise InputError(f"{folder}: {', '.join(missing)} is missing; expected a complete MSD task")
    try:
        task = load_json(folder / "dataset.json")
        channels, labels = list(task["modality"].values()), list(task["labels"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{folder / 'dataset.json'}: not the dataset.json of an MSD task ({error!r})") from error
    if channels != ["CT"]:
        raise InputError(f"{folder / 'dataset.json'}: modality is {channels}; only tasks of CT alone can be converted")
    if sorted(map(int, labels)) != list(range(len(labels))):
        raise InputError(f"{folder / 'dataset.json'}: label values {labels}; expected 0, 1, 2, ...")
    return task


def _check_headers(task: Path) -> None:
    """nnU-Net's converter stops at the first image that SimpleITK cannot read.

    Raises:
        InputError: naming the image.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    for path in sorted(path for part in ("imagesTr", "imagesTs") for path in (task / part).glob("[!._]*.nii.gz")):
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise InputError(f"{path}: nnU-Net's converter cannot read it; get it again, or remove it") from error


def _run_nnunets_converter(task: Path, raw: Path, processes: int) -> Path:
    from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset

    try:
        with _nnunet_raw(raw):
            convert_msd_dataset(str(task), None, processes)
    # It reads every image with SimpleITK, and stops at the first that is broken.
    except (RuntimeError, AssertionError, OSError) as error:
        raise InputError(f"{task}: nnU-Net's converter failed: {error}") from error
    (converted,) = raw.iterdir()
    return converted


@contextmanager
def _nnunet_raw(folder: Path) -> Iterator[None]:
    """nnU-Net, which reads its variables when asked, writes to this folder and sees no other dataset."""
    before = {name: os.environ.pop(name) for name in FOLDER_VARIABLES if name in os.environ}
    os.environ[RAW] = str(folder)
    try:
        yield
    finally:
        del os.environ[RAW]
        os.environ.update(before)


def _look(image: Path, labels: Path, *, spacing_mm: Sequence[float] | None) -> ScanHeader:
    scan = read_ct_header(image, spacing_mm=spacing_mm)
    check_labels_header(labels, like=scan)
    return scan


def _load(
    case: str, *, converted: Path, declared: list[int], source: Path, spacing_mm: Sequence[float] | None
) -> RawCase:
    scan = read_ct(converted / "imagesTr" / f"{case}_0000.nii.gz", spacing_mm=spacing_mm)
    labels = read_labels(converted / "labelsTr" / f"{case}.nii.gz", like=scan, declared=declared)
    return RawCase(scan, labels, str(source / "imagesTr" / f"{case}.nii.gz"))
