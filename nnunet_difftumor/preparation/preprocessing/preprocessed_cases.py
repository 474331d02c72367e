"""nnU-Net's preprocessing case by case: what is there and still right is kept, what has changed is made again."""

import contextlib
import hashlib
import io
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_difftumor.ct.whole_files import check_is_whole
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import DiskError, blaming_the_disk
from nnunet_difftumor.preparation.preprocessing.plans import CONFIGURATION
from nnunet_difftumor.preparation.preprocessing.raw_images import check_case_hu
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.made_from.raw_files import RawFiles
from nnunet_difftumor.prepared.made_from.records import (
    CaseRecord,
    hashed,
    preprocessing_key,
    read_case_record,
    write_case_record,
)
from nnunet_difftumor.prepared.orientation import axis_codes
from nnunet_difftumor.worker_processes import worker_processes

_ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")


class WrongCaseError(InputError):
    """A raw case that is damaged, no CT in HU or wrongly labelled: plans that were made with it are wrong too."""


class PreprocessedCases:
    """The preprocessed files of one folder, and the records of what they were made from.

    Args:
        folder: of the arrays.
        records: of the records.
        hashes: of raw and preprocessed files.
        plans: nnU-Net's.
    """

    def __init__(self, folder: Path, records: Path, *, hashes: FileHashes, plans: Mapping[str, Any]) -> None:
        self.folder, self._records, self._hashes = folder, records, hashes
        self._plans, self._key = dict(plans), preprocessing_key(plans, CONFIGURATION)

    def names(self) -> set[str]:
        """Of all cases of which there is a record or a file."""
        recorded = {path.name.removesuffix(".json") for path in self._records.glob("[!.]*.json")}
        arrays = nnUNetDatasetBlosc2.get_identifiers(str(self.folder)) if self.folder.is_dir() else []
        return recorded | set(arrays)

    def record(self, name: str) -> CaseRecord:
        """Of a case that is made."""
        found = read_case_record(self._path(name))
        if found is None:
            raise InputError(f"{self._path(name)}: is missing or damaged; run `difftumor prepare` again")
        return found

    def changes(self, cases: Mapping[str, RawFiles], *, read: bool = True) -> dict[str, str]:
        """Which cases are to be made, and why; files that were looked at before cost no reading.

        Args:
            cases: by name.
            read: False: nothing is read; of files that were not looked at as they are now, this is said.

        Raises:
            InputError: for a file that cannot be read.
        """
        if not read:
            found = {name: self._unread(name, files) or self._reason(name, files) for name, files in cases.items()}
            return {name: reason for name, reason in found.items() if reason is not None}
        unread = [path for files in cases.values() for path in files.all if not self._hashes.knows(path)]
        reasons = {}
        with tqdm(
            total=len(unread), desc="reading raw files", unit="file", disable=None if unread else True
        ) as progress:
            for name, files in cases.items():
                progress.update(sum(not self._hashes.knows(path) for path in files.all))
                try:
                    reason = self._reason(name, files)
                except OSError as error:
                    raise InputError(
                        f"{error.filename}: cannot be read ({error.strerror}); fix or remove it"
                    ) from error
                if reason is not None:
                    reasons[name] = reason
        return reasons

    def forget(self, name: str) -> None:
        """The record first: what it speaks of is then made again after an interruption."""
        for path in (self._path(name), *(self.folder / f"{name}{end}" for end in _ENDINGS)):
            path.unlink(missing_ok=True)

    def make(
        self, cases: Mapping[str, RawFiles], dataset_json: Mapping[str, Any], *, processes: int, check: bool
    ) -> None:
        """Preprocesses cases; each appears when all its files are written, and its record last.

        Args:
            cases: by name.
            dataset_json: of their dataset.
            processes: at most.
            check: whether nnU-Net's check of image and label map comes first.

        Raises:
            WrongCaseError: naming a case that must not be preprocessed.
            InputError: naming a case that cannot be preprocessed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            _Job(name, files, hashed(files.all, self._hashes), self.folder, self._path(name), check)
            for name, files in cases.items()
        ]
        self._hashes.save()
        try:
            with worker_processes(min(processes, len(jobs))) as executor:
                waiting = {
                    executor.submit(_preprocess, job, self._plans, self._key, dict(dataset_json)): job for job in jobs
                }
                for future in tqdm(as_completed(waiting), total=len(waiting), unit="case", disable=None):
                    job = waiting[future]
                    _check(future, job)
                    for name, (_, digest) in self.record(job.name).arrays.items():
                        self._hashes.remember(self.folder / name, digest)
        finally:
            self.remove_unfinished()
        self._hashes.save()

    def remove_unfinished(self) -> None:
        """Removes what was being made, by this process or by one that was killed."""
        shutil.rmtree(_unfinished(self.folder), ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _unread(self, name: str, files: RawFiles) -> str | None:
        """Which file would be read before it is known whether a case is still right; None if there is none."""
        record = read_case_record(self._path(name))
        if record is None:
            return None
        paths = (*files.all, *(self.folder / array for array in record.arrays))
        path = next((path for path in paths if path.is_file() and not self._hashes.knows(path)), None)
        return None if path is None else f"if {path.name}, of another time of change, has another content"

    def _reason(self, name: str, files: RawFiles) -> str | None:
        record = read_case_record(self._path(name))
        if record is None:
            there = (self.folder / f"{name}.b2nd").is_file()
            return "of an older version, which kept no record of what it was made from" if there else "new"
        now = hashed(files.all, self._hashes)
        if set(now) != set(record.files):
            return "its files have other names"
        label = next(reversed(now))
        changed = [path for path in now if now[path] != record.files[path]]
        if changed:
            what = {path: "label map" if path == label else "image" for path in now}
            return f"its {' and '.join(sorted({what[path] for path in changed}))} changed"
        if record.plans != self._key:
            return "other plans"
        for array, (size, digest) in record.arrays.items():
            path = self.folder / array
            if not path.is_file():
                return f"{array} is missing"
            if path.stat().st_size != size or self._hashes.sha256(path) != digest:
                return f"{array} is damaged"
        return None


def in_words(reasons: Mapping[str, str], *, most: int = 20) -> list[str]:
    """A line per case, or a count per reason where there are many of one."""
    counts = Counter(reasons.values())
    lines = [f"{count} cases: {reason}" for reason, count in counts.items() if count > most]
    return lines + [f"{name}: {reason}" for name, reason in reasons.items() if counts[reason] <= most]


def axes_of(properties: Mapping[str, Any], transpose_forward: Sequence[int]) -> str:
    """Where a preprocessed array's axes lead to; "unknown" for readers without geometry."""
    try:
        return axis_codes(properties, transpose_forward)
    except InputError:
        return "unknown"


@dataclass(frozen=True)
class _Job:
    """One case to be preprocessed.

    Attributes:
        name: of the case.
        files: raw.
        hashes: of the raw files, by the names that records have for them.
        folder: of the arrays.
        record: path of the record.
        check: whether nnU-Net's check comes first.
    """

    name: str
    files: RawFiles
    hashes: Mapping[str, str]
    folder: Path
    record: Path
    check: bool


def _preprocess(job: _Job, plans: dict, key: str, dataset_json: dict) -> None:
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    images, label = [str(path) for path in job.files.images], str(job.files.label)
    for path in (*job.files.images, job.files.label):
        check_is_whole(Path(path))
    if job.check:
        _check_as_nnunet_does(images, label, manager)
    found: dict[str, Any] = {}

    class ObservedPreprocessor(configuration.preprocessor_class):
        def run_case_npy(self, data, seg, properties, *args):
            check_case_hu(data[0], seg[0], dataset_json, where=images[0])
            found["axes"] = axes_of(properties, manager.transpose_forward)
            found["unknown"] = sorted({int(value) for value in np.unique(seg)} - _declared(dataset_json))
            return super().run_case_npy(data, seg, properties, *args)

    unfinished = _unfinished(job.folder) / job.name
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with blaming_the_disk(unfinished):
        ObservedPreprocessor(verbose=False).run_case_save(
            str(unfinished / job.name), images, label, manager, configuration, dataset_json
        )
    if found["unknown"]:
        raise InputError(f"{label}: has label values {found['unknown']} that dataset.json does not declare")
    arrays = {}
    for file in sorted(unfinished.iterdir()):
        with open(file, "rb") as content:
            arrays[file.name] = (file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest())
        file.replace(job.folder / file.name)
    write_case_record(job.record, CaseRecord(job.hashes, key, arrays, found["axes"]))


def _check_as_nnunet_does(images: list[str], label: str, manager: PlansManager) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases

    with contextlib.redirect_stdout(io.StringIO()) as said:
        good = check_cases(images, label, 1, manager.image_reader_writer_class)
    if not good:
        raise InputError(f"{label}: nnU-Net's check of this case failed: {' '.join(said.getvalue().split())}")


def _check(future: Future, job: _Job) -> None:
    try:
        future.result()
    except DiskError:
        raise
    except InputError as error:
        raise WrongCaseError(str(error)) from error
    except BrokenProcessPool as error:
        raise InputError(
            "a process was killed while it preprocessed, most likely for want of memory; give fewer processes "
            "(`processes` 1), the same command resumes"
        ) from error
    except Exception as error:
        raise InputError(f"{job.files.images[0]}: nnU-Net cannot preprocess this case ({error!r})") from error


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".unfinished-{folder.name}")


def _declared(dataset_json: Mapping[str, Any]) -> set[int]:
    values = dataset_json["labels"].values()
    return {int(label) for value in values for label in (value if isinstance(value, list | tuple) else [value])}
