"""Prepared data that no longer are what the raw data and the settings say."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_difftumor.checks.finding import ERROR, NOTE, Finding
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.nnunet_folders import RAW
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.made_from import records
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.made_from.raw_files import RawFiles, raw_cases
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json

_KIND = "stale"


def dataset_number(folder: Path) -> int:
    """3 of Dataset003_Name."""
    return int(folder.name[len("Dataset") : len("Dataset") + 3])


def stale_data(
    folder: Path, *, plans: Mapping[str, Any], configuration: str, config: DiffTumorConfig, hashes: FileHashes
) -> list[Finding]:
    """Compares a preprocessed dataset's record with its raw dataset, plans and settings.

    Files whose size and time of change are known are not read.

    Args:
        folder: of the preprocessed dataset.
        plans: that are to be trained with.
        configuration: of the plans.
        config: settings that are to be trained with.
        hashes: of its files.
    """
    again = f"run `difftumor prepare -d {dataset_number(folder)}`, which makes only what has changed"
    made = records.read_dataset_record(folder)
    if made is None:
        seen = f"{folder} was not prepared to the end, or by an older version, which kept no record of what it was from"
        return [Finding(_KIND, "", ERROR, seen, again)]
    return [
        *_plans(plans, configuration, made, folder, again),
        *_settings(config, made, folder, again),
        *_arrays(folder, plans["configurations"][configuration]["data_identifier"], hashes, again),
        *_raw(folder, made, hashes, again),
    ]


def _plans(
    plans: Mapping[str, Any], configuration: str, made: records.DatasetRecord, folder: Path, again: str
) -> list[Finding]:
    window = records.window_hu(plans)
    name = plans.get("plans_name", "the plans")
    if window != list(made.window_hu):
        seen = f"{name}: the HU window is {_interval(window)}, but {folder} was preprocessed with "
        return [Finding("window", "", ERROR, seen + _interval(made.window_hu), f"train with its plans, or {again}")]
    if records.preprocessing_key(plans, configuration) != made.plans:
        seen = f"{name}: spacing, normalization or resampling is not what {folder} was preprocessed with"
        return [Finding(_KIND, "", ERROR, seen, f"train with its plans, or {again}")]
    return []


def _settings(config: DiffTumorConfig, made: records.DatasetRecord, folder: Path, again: str) -> list[Finding]:
    if [organ.to_dict() for organ in config.organs] == [dict(organ) for organ in made.organs]:
        return []
    return [Finding(_KIND, "", ERROR, f"{folder / 'difftumor.json'}: organs are not those that were measured", again)]


def _arrays(folder: Path, data_identifier: str, hashes: FileHashes, again: str) -> list[Finding]:
    """Preprocessed files that are not what was written, one of each case."""
    written = []
    for case, record in records.read_case_records(folder).items():
        pooled = (records.pool_cases_folder(folder) / f"{case}.json").is_file()
        place = (records.pools_folder(folder) if pooled else folder) / data_identifier
        written.append((case, {place / name: entry for name, entry in record.arrays.items()}))
    unread = sum(path.is_file() and not hashes.knows(path) for _, files in written for path in files)
    found = {}
    with tqdm(total=unread, desc="reading preprocessed files", unit="file", disable=None if unread else True) as bar:
        for case, files in written:
            for path, (size, digest) in files.items():
                bar.update(path.is_file() and not hashes.knows(path))
                if case not in found and (seen := _damage(path, size, digest, hashes)):
                    found[case] = Finding("damaged", case, ERROR, seen, again)
    return list(found.values())


def _damage(path: Path, size: int, digest: str, hashes: FileHashes) -> str:
    """What is wrong with a file of which this was written; empty if nothing is."""
    try:
        if (seen := path.stat().st_size) != size:
            return f"{path} has {seen} bytes, but {size} were written: it is damaged"
        return "" if hashes.sha256(path) == digest else f"{path} is not what was written: it is damaged"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"


def _raw(folder: Path, made: records.DatasetRecord, hashes: FileHashes, again: str) -> list[Finding]:
    root = os.environ.get(RAW)
    raw = Path(root) / folder.name if root else None
    if raw is None or not (raw / "dataset.json").is_file():
        where = f"{raw} is not here" if raw else f"{RAW} is not set"
        return [Finding(_KIND, "", NOTE, f"{where}: {folder} is not compared with its raw data", "nothing")]
    try:
        dataset_json = read_dataset_json(raw / "dataset.json")
        cases = raw_cases(raw, dataset_json)
        findings = []
        for pool in made.pools:
            other = raw.parent / pool
            if not (other / "dataset.json").is_file():
                findings.append(Finding(_KIND, "", NOTE, f"{other} is not here: its cases are not compared", "nothing"))
                cases |= {
                    name: RawFiles((), Path())
                    for name in records.read_case_records(folder)
                    if name.startswith(f"{pool}_")
                }
                continue
            found = raw_cases(other, read_dataset_json(other / "dataset.json"))
            cases |= {f"{pool}_{name}": files for name, files in found.items()}
    except InputError as error:
        return [Finding(_KIND, "", ERROR, str(error), again)]
    if dataset_json["labels"] != dict(made.labels):
        seen = f"{raw / 'dataset.json'}: labels are not those of when the dataset was prepared"
        findings.append(Finding(_KIND, "", ERROR, seen, again))
    known = records.read_case_records(folder)
    for case in sorted(set(known) - set(cases)):
        seen = f"was withdrawn from {raw.name}, but is still in the prepared dataset"
        findings.append(Finding("withdrawn", case, ERROR, seen, again))
    for case in sorted(set(cases) - set(known)):
        findings.append(Finding("added", case, ERROR, f"is in {raw.name}, but not in the prepared dataset", again))
    for case in sorted(set(cases) & set(known)):
        if files := cases[case].images:
            findings += _changed(case, (*files, cases[case].label), known[case], hashes, again)
    return findings


def _changed(
    case: str, files: tuple[Path, ...], record: records.CaseRecord, hashes: FileHashes, again: str
) -> list[Finding]:
    try:
        now = records.hashed(files, hashes)
    except OSError as error:
        return [Finding(_KIND, case, ERROR, f"{error.filename} cannot be read ({error.strerror})", again)]
    return [
        Finding(_KIND, case, ERROR, f"{path} has changed since the dataset was prepared", again)
        for path, name in zip(files, now, strict=True)
        if record.files.get(name) != now[name]
    ]


def _interval(window_hu) -> str:
    low, high = window_hu
    return f"{low:g} to {high:g}"
