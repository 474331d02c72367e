"""Healthy pools: the cases of other raw datasets become bases of a dataset, preprocessed with its plans."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.checks.examine import Remembered
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.preparation.preprocessing.plans import CONFIGURATION
from nnunet_difftumor.preparation.preprocessing.preprocessed_cases import PreprocessedCases, in_words
from nnunet_difftumor.prepared.label_free_validation import forget_validation_case
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.made_from.raw_files import RawFiles, check_case_list, raw_cases
from nnunet_difftumor.prepared.made_from.records import pool_cases_folder, read_case_record
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_pools
from nnunet_difftumor.prepared.pools import pool_list, pools_folder


class HealthyPools:
    """The pools of one dataset: those that were added before, and new ones.

    Args:
        folder: `nnUNet_preprocessed/DatasetXXX_NAME` of the dataset.
        raw: `nnUNet_raw/DatasetXXX_NAME` of the dataset.
        pools: raw folders of pools to add.
        overwrite: forget the pools that were added before.

    Raises:
        InputError: if a pool is missing or empty, or its labels or channels are not those of the dataset.
    """

    def __init__(self, folder: Path, raw: Path, *, pools: Sequence[Path], overwrite: bool) -> None:
        self.folder, self._raw, self._overwrite = pools_folder(folder), raw, overwrite
        self._dataset_folder, self._list = folder, pool_list(folder)
        self._ending = read_dataset_json(raw / "dataset.json")["file_ending"]
        before = [] if overwrite else read_pools(self._list)
        self.names = sorted({*before, *(pool.name for pool in pools)})
        self.cases = {case: files for name in self.names for case, files in self._cases(raw.parent / name).items()}

    def preprocess(
        self, plans: Mapping[str, Any], *, hashes: FileHashes, processes: int, report: Callable[[str], None]
    ) -> None:
        """Preprocesses what is new or has changed, and removes what is gone.

        Raises:
            InputError: naming the case that cannot be preprocessed.
        """
        if self._overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
        if not self.names:
            return
        # First, so that an interrupted call resumes with the same pools.
        write_json(self._list, self.names)
        made = self.made(plans, hashes=hashes)
        made.remove_unfinished()
        for name in sorted(made.names() - set(self.cases)):
            report(f"      {name}: withdrawn from its pool; removed")
            Remembered(self._dataset_folder).forget(name)
            self._forget(name, made)
        changes = made.changes(self.cases)
        count = f"{len(self.cases)} cases, {len(changes)} of them to preprocess"
        report(f"      healthy pools {', '.join(self.names)}: {count}")
        for line in in_words({name: reason for name, reason in changes.items() if reason != "new"}):
            report(f"      {line}; made again")
        for name in changes:
            self._forget(name, made)
        if changes:
            dataset_json = read_dataset_json(self._raw / "dataset.json")
            made.make({name: self.cases[name] for name in changes}, dataset_json, processes=processes, check=True)

    def made(self, plans: Mapping[str, Any], *, hashes: FileHashes) -> PreprocessedCases:
        """The preprocessed cases of the pools."""
        final = self.folder / plans["configurations"][CONFIGURATION]["data_identifier"]
        return PreprocessedCases(final, pool_cases_folder(self._dataset_folder), hashes=hashes, plans=plans)

    def lying_otherwise(self, own: Collection[str]) -> list[str]:
        """The preprocessed cases whose axes lead to none of `own` (see `orientation.axis_codes`)."""
        records = {
            name: read_case_record(pool_cases_folder(self._dataset_folder) / f"{name}.json") for name in self.cases
        }
        return [name for name, record in records.items() if record is not None and record.axes not in own]

    def _cases(self, pool: Path) -> dict[str, RawFiles]:
        if not (pool / "dataset.json").is_file():
            raise InputError(
                f"{pool}: not found, but its cases are bases of {self._raw.name}; put it back, or start again without "
                "it: `overwrite`"
            )
        if pool == self._raw:
            raise InputError(f"`healthy`: {pool.name} is the dataset itself; its healthy cases are bases already")
        own, theirs = (read_dataset_json(folder / "dataset.json") for folder in (self._raw, pool))
        for key, what in (("labels", _labels), ("channel_names", _channels)):
            if what(own) != what(theirs):
                expected = f"expected those of {self._raw.name}: {what(own)}"
                raise InputError(f"{pool / 'dataset.json'}: {key} are {what(theirs)}, {expected}")
        files = raw_cases(pool, theirs)
        if not files:
            raise InputError(f"{pool}: has no cases")
        check_case_list(pool, theirs, files)
        taken = {f"{pool.name}_{case}" for case in files} & set(raw_cases(self._raw, own))
        if taken:
            raise InputError(f"{self._raw}: has cases with the names that cases of {pool.name} get: {sorted(taken)}")
        return {f"{pool.name}_{case}": case_files for case, case_files in files.items()}

    def _forget(self, name: str, made: PreprocessedCases) -> None:
        made.forget(name)
        forget_validation_case(self._dataset_folder, name, file_ending=self._ending)


def _labels(dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: sorted(map(int, value)) if isinstance(value, list | tuple) else int(value)
        for name, value in dataset_json["labels"].items()
    }


def _channels(dataset_json: Mapping[str, Any]) -> list[str]:
    return [str(name).casefold() for name in dataset_json["channel_names"].values()]
