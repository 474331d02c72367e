"""Writes an nnU-Net raw dataset from cases, whole or not at all, and reports on every case."""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import Scan, write_ct, write_labels
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json

FILE_ENDING = ".nii.gz"


@dataclass(frozen=True, eq=False)
class RawCase:
    """One case ready to be written.

    Attributes:
        scan: the CT. If its file can serve as it is, it is copied byte for byte.
        labels: integers (z, y, x), values of the dataset to be made.
        source: where it came from, for the report.
    """

    scan: Scan
    labels: np.ndarray
    source: str


def write_raw_dataset(
    cases: Mapping[str, Callable[[], RawCase]],
    dataset_id: int,
    *,
    name: str,
    labels: Mapping[str, int],
    overwrite: bool = False,
    about: Mapping[str, str] | None = None,
    test_images: Path | None = None,
) -> Path:
    """Writes `nnUNet_raw/DatasetXXX_Name` with one channel, CT, and `conversion_report.json` beside dataset.json.

    The dataset is built in a hidden folder beside its place and renamed at the end. Prints a line for each case.

    Args:
        cases: by case name, a function that loads the case and raises InputError if it is to be rejected.
        dataset_id: 1 to 999.
        name: the Name in DatasetXXX_Name.
        labels: label values by name, with background 0, consecutive.
        overwrite: replaces a dataset of the same id and name, after the new one is complete.
        about: description, reference, release or license, for dataset.json.
        test_images: a folder that becomes imagesTs; it is moved.

    Returns:
        The dataset's folder.

    Raises:
        InputError: nnUNet_raw is not set, id or name are not free, no case is left, or the disk is full.
    """
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    target = dataset_folder(dataset_id, name, overwrite=overwrite)
    report = {"converted_by": f"difftumor {__version__}", "labels": dict(labels), "cases": {}, "rejected": {}}
    with _replacing(target) as folder, _disk_errors(target):
        for number, (case, load) in enumerate(cases.items(), 1):
            progress = f"[{number}/{len(cases)}] {case}:"
            try:
                _check_case_name(case)
                loaded = load()
                _check_nnunet_reads_the_same(loaded.scan)
            except InputError as error:
                report["rejected"][case] = str(error)
                print(f"{progress} REJECTED: {error}", flush=True)
                continue
            _write_case(folder, case, loaded)
            report["cases"][case] = _facts(loaded, labels)
            print(f"{progress} {_line(report['cases'][case])}", flush=True)
        if not report["cases"]:
            reasons = "".join(f"\n  {case}: {reason}" for case, reason in report["rejected"].items())
            raise InputError(f"no case is left for {target.name}, nothing was written{reasons or ': none was found'}")
        if test_images is not None:
            shutil.move(test_images, folder / "imagesTs")
        generate_dataset_json(
            str(folder),
            channel_names={"0": "CT"},
            labels=dict(labels),
            num_training_cases=len(report["cases"]),
            file_ending=FILE_ENDING,
            dataset_name=name,
            converted_by=report["converted_by"],
            **{"license": "see the source of the images", **(about or {})},
        )
        write_json(folder / "conversion_report.json", report)
    print(f"{target}: {len(report['cases'])} cases, {len(report['rejected'])} rejected", flush=True)
    return target


def dataset_folder(dataset_id: int, name: str, *, overwrite: bool) -> Path:
    """The place of a new raw dataset, after checking that it may be written there.

    Raises:
        InputError: nnUNet_raw is not set, the id or the name is not valid or belongs to another dataset, or the
            dataset exists and overwrite is false.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

    if not os.environ.get("nnUNet_raw"):
        raise InputError("nnUNet_raw is not set; give nnU-Net a folder for raw datasets: export nnUNet_raw=/a/folder")
    if not 1 <= dataset_id <= 999:
        raise InputError(f"dataset id {dataset_id}: expected 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or "__" in name:
        raise InputError(f"dataset name {name!r}: expected letters, digits, '-', '.' and single '_'")
    target = Path(os.environ["nnUNet_raw"]).absolute() / f"Dataset{dataset_id:03d}_{name}"
    prefix = f"Dataset{dataset_id:03d}_"
    others = [str(other) for other in find_candidate_datasets(dataset_id) if str(other).startswith(prefix)]
    others = [other for other in others if other != target.name]
    if others:
        raise InputError(
            f"dataset id {dataset_id} is taken by {', '.join(others)} (in nnUNet_raw, nnUNet_preprocessed or "
            "nnUNet_results); choose another id"
        )
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another id, or replace it with --overwrite")
    return target


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A hidden folder that takes the place of target at the end; after an error it is removed, target untouched."""
    new = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}")
    old = new.with_name(f"{new.name}-replaced")
    try:
        for part in ("imagesTr", "labelsTr"):
            (new / part).mkdir(parents=True)
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error}); nothing was left there") from error


def _check_case_name(case: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", case):
        raise InputError(f"{case!r} cannot be a case name; use letters, digits, '_', '-' and '.'")


def _check_nnunet_reads_the_same(scan: Scan) -> None:
    """nnU-Net reads with SimpleITK, which refuses or sees otherwise some headers that nibabel accepts."""
    import SimpleITK

    if scan.path is None:
        return
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(scan.path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{scan.path}: nnU-Net's reader, SimpleITK, refuses it ({reason}); rewrite its header"
        ) from error
    spacing_mm = reader.GetSpacing()[:3][::-1]
    if not np.allclose(spacing_mm, scan.spacing_mm, rtol=0.01):
        raise InputError(
            f"{scan.path}: nnU-Net's reader, SimpleITK, sees a spacing (z, y, x) of {spacing_mm} mm where the affine "
            f"gives {scan.spacing_mm}; rewrite its header"
        )


def _write_case(folder: Path, case: str, loaded: RawCase) -> None:
    image = folder / "imagesTr" / f"{case}_0000{FILE_ENDING}"
    scan = loaded.scan
    if scan.path is not None and scan.path.name.endswith(FILE_ENDING) and len(scan.header.get_data_shape()) == 3:
        shutil.copyfile(scan.path, image)
    else:
        write_ct(image, scan.hu, scan, description=None)
    write_labels(folder / "labelsTr" / f"{case}{FILE_ENDING}", loaded.labels, scan)


def _facts(loaded: RawCase, labels: Mapping[str, int]) -> dict:
    scan = loaded.scan
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    volumes = {name: np.count_nonzero(loaded.labels == value) * voxel_ml for name, value in labels.items() if value}
    return {
        "source": loaded.source,
        "shape": list(scan.hu.shape),
        "spacing_mm": [round(spacing, 4) for spacing in scan.spacing_mm],
        "hu_range": [float(scan.hu.min()), float(scan.hu.max())],
        "volume_ml": {name: round(volume, 3) for name, volume in volumes.items()},
    }


def _line(facts: dict) -> str:
    grid = " x ".join(str(n) for n in facts["shape"])
    spacing = " x ".join(f"{step:.3g}" for step in facts["spacing_mm"])
    volumes = ", ".join(f"{name} {volume:.1f} ml" for name, volume in facts["volume_ml"].items() if volume)
    return f"{grid} voxels of {spacing} mm; {volumes or 'no label'}"
