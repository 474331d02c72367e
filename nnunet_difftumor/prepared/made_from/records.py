"""The records in `difftumor_made_from/`: `cases/CASE.json`, and `dataset.json` once everything is made.

They lie in the preprocessed dataset; those of pool cases beside the pools. A case's record is written after its
preprocessed files, that of the dataset after everything else.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.nnunet_folders import RAW, nnunet_folder
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.pools import pools_folder

_FOLDER = "difftumor_made_from"
_SCHEMA_VERSION = 1
# What of a configuration does not change what the preprocessed arrays hold.
_NOT_CONTENT = (
    "architecture",
    "batch_size",
    "batch_dice",
    "data_identifier",
    "median_image_size_in_voxels",
    "patch_size",
)


@dataclass(frozen=True)
class CaseRecord:
    """What one preprocessed case was made from.

    Attributes:
        files: SHA-256 of the raw files, by their path in nnUNet_raw, or by their full path if they lie elsewhere.
        plans: what of the plans decides the arrays (see `preprocessing_key`).
        arrays: bytes and SHA-256 of the preprocessed files, by name.
        axes: where the axes of the preprocessed arrays lead to.
    """

    files: Mapping[str, str]
    plans: str
    arrays: Mapping[str, tuple[int, str]]
    axes: str

    @property
    def version(self) -> str:
        """Changes with whatever changes the arrays."""
        return hashlib.sha256(json.dumps([dict(self.files), self.plans], sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class DatasetRecord:
    """What a whole preprocessed dataset was made from.

    Attributes:
        difftumor, nnunetv2: versions that made it.
        plans: as in `CaseRecord`.
        window_hu: of the arrays.
        organs: as in difftumor.json; what was measured.
        labels: as in dataset.json.
        pools: names of healthy pools.
    """

    difftumor: str
    nnunetv2: str
    plans: str
    window_hu: Sequence[float]
    organs: Sequence[Mapping[str, Any]]
    labels: Mapping[str, Any]
    pools: Sequence[str]


def preprocessing_key(plans: Mapping[str, Any], configuration: str) -> str:
    """Changes with whatever of the plans changes what the preprocessed arrays hold."""
    settings = plans["configurations"][configuration]
    parts = [
        {key: value for key, value in settings.items() if key not in _NOT_CONTENT},
        *(plans[key] for key in ("foreground_intensity_properties_per_channel", "transpose_forward")),
        plans["image_reader_writer"],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def window_hu(plans: Mapping[str, Any]) -> list[float]:
    """Least and greatest HU that preprocessing with these plans keeps."""
    properties = plans["foreground_intensity_properties_per_channel"]["0"]
    return [float(properties["percentile_00_5"]), float(properties["percentile_99_5"])]


def file_hashes(dataset_folder: Path) -> FileHashes:
    """Of a preprocessed dataset's raw and preprocessed files."""
    return FileHashes(dataset_folder / _FOLDER / "hashes.json", root=dataset_folder)


def cases_folder(dataset_folder: Path) -> Path:
    """Of the records of the dataset's own cases."""
    return dataset_folder / _FOLDER / "cases"


def pool_cases_folder(dataset_folder: Path) -> Path:
    """Of the records of the cases of its healthy pools."""
    return pools_folder(dataset_folder) / "made_from"


def read_case_records(dataset_folder: Path) -> dict[str, CaseRecord]:
    """Of all cases, those of healthy pools too; damaged ones are left out, as if they were not there."""
    folders = cases_folder(dataset_folder), pool_cases_folder(dataset_folder)
    paths = [path for folder in folders for path in sorted(folder.glob("[!.]*.json"))]
    found = {path.name.removesuffix(".json"): read_case_record(path) for path in paths}
    return {name: record for name, record in found.items() if record is not None}


def read_case_record(path: Path) -> CaseRecord | None:
    """None if it is missing, damaged or of another version."""
    record = _read(path)
    if record is None:
        return None
    arrays = {name: (int(size), str(digest)) for name, (size, digest) in record["arrays"].items()}
    return CaseRecord(record["files"], record["plans"], arrays, record["axes"])


def write_case_record(path: Path, record: CaseRecord) -> None:
    write_json(path, {"schema_version": _SCHEMA_VERSION, **asdict(record)})


def read_dataset_record(dataset_folder: Path) -> DatasetRecord | None:
    """None if the dataset was never prepared to the end, or by a version that kept no record."""
    record = _read(dataset_folder / _FOLDER / "dataset.json")
    return None if record is None else DatasetRecord(**{k: v for k, v in record.items() if k != "schema_version"})


def write_dataset_record(dataset_folder: Path, record: DatasetRecord) -> None:
    write_json(dataset_folder / _FOLDER / "dataset.json", {"schema_version": _SCHEMA_VERSION, **asdict(record)})


def forget_dataset_record(dataset_folder: Path) -> None:
    """While something is being made again, the dataset is not prepared."""
    (dataset_folder / _FOLDER / "dataset.json").unlink(missing_ok=True)


def hashed(paths: Sequence[Path], hashes: FileHashes) -> dict[str, str]:
    """SHA-256 of raw files, under the names that records have for them."""
    root = os.path.abspath(nnunet_folder(RAW))
    return {_name_of(path, root): hashes.sha256(path) for path in paths}


def _name_of(path: Path, root: str) -> str:
    whole = os.path.abspath(path)
    inside = whole.startswith(root + os.sep)
    return Path(os.path.relpath(whole, root)).as_posix() if inside else whole


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = load_json(path)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema_version") == _SCHEMA_VERSION else None
