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

from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.dataset_conversion.raw_dataset import (
    RawCase,
    SourceCase,
    dataset_folder,
    write_raw_dataset,
)
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import scratch_folder
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.nnunet_folders import FOLDER_VARIABLES, RAW


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, default=2, help="processes for copying (%(default)s)")


def convert(
    input_folder: str | Path,
    dataset_id: int,
    *,
    name: str | None = None,
    overwrite: bool = False,
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
    with scratch_folder(target) as temporary:
        converted = _run_nnunets_converter(input_folder, temporary, processes)
        labels = load_json(converted / "dataset.json")["labels"]
        files = sorted((converted / "imagesTr").glob("*_0000.nii.gz"))
        load = functools.partial(
            _load,
            converted=converted,
            declared=labels.values(),
            source=input_folder,
            spacing_mm=spacing_mm,
        )
        names = [file.name.removesuffix("_0000.nii.gz") for file in files]
        return write_raw_dataset(
            {case: SourceCase(functools.partial(load, case), _source_files(input_folder, case)) for case in names},
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
        )


def _source_files(folder: Path, case: str) -> tuple[Path, Path]:
    return folder / "imagesTr" / f"{case}.nii.gz", folder / "labelsTr" / f"{case}.nii.gz"


def _read_task(folder: Path) -> dict:
    """The task's dataset.json, after checking what nnU-Net's converter asserts."""
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


def _load(
    case: str, *, converted: Path, declared: list[int], source: Path, spacing_mm: Sequence[float] | None
) -> RawCase:
    scan = read_ct(converted / "imagesTr" / f"{case}_0000.nii.gz", spacing_mm=spacing_mm)
    labels = read_labels(converted / "labelsTr" / f"{case}.nii.gz", like=scan, declared=declared)
    return RawCase(scan, labels, str(source / "imagesTr" / f"{case}.nii.gz"))
