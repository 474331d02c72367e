"""nnU-Net's fingerprint, plans and preprocessing of a dataset, of which is made what is missing or has changed."""

import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_difftumor.checks.examine import Remembered
from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.files import atomic_path, write_json
from nnunet_difftumor.pools_of_others import pools_of_others
from nnunet_difftumor.preparation.folds import drop_from_folds
from nnunet_difftumor.preparation.preprocessing.plans import (
    CONFIGURATION,
    check_request,
    plan,
    remove_half_written,
    stored_request,
)
from nnunet_difftumor.preparation.preprocessing.preprocessed_cases import PreprocessedCases, WrongCaseError, in_words
from nnunet_difftumor.prepared.config import PLANS_NAME
from nnunet_difftumor.prepared.label_free_validation import forget_validation_case
from nnunet_difftumor.prepared.made_from import records
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.made_from.raw_files import RawFiles
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_plans_file

_PLANNER = "nnUNetPlannerResEncM"


@dataclass(kw_only=True)
class Preprocessing:
    """The plans and preprocessed cases of one dataset.

    Attributes:
        dataset_id: of the dataset.
        raw, folder: of the raw and of the preprocessed dataset.
        dataset_json: nnU-Net's.
        cases: the training cases by name.
        processes: for nnU-Net's preprocessing.
        overwrite: start again with everything.
        report: gets a line per step.
    """

    dataset_id: int
    raw: Path
    folder: Path
    dataset_json: dict[str, Any]
    cases: dict[str, RawFiles]
    processes: int
    overwrite: bool
    report: Callable[[str], None]

    @property
    def plans_file(self) -> Path:
        return self.folder / f"{PLANS_NAME}.json"

    @cached_property
    def plans(self) -> dict[str, Any]:
        """nnU-Net's plans, once they are made."""
        return read_plans_file(self.plans_file)

    @property
    def cases_folder(self) -> Path:
        """The folder of preprocessed cases."""
        return self.folder / self.plans["configurations"][CONFIGURATION]["data_identifier"]

    @cached_property
    def hashes(self) -> FileHashes:
        return records.file_hashes(self.folder)

    @cached_property
    def made(self) -> PreprocessedCases:
        """The preprocessed cases that are there."""
        folder = records.cases_folder(self.folder)
        return PreprocessedCases(self.cases_folder, folder, hashes=self.hashes, plans=self.plans)

    def new_request(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """What new plans are to be made for; None if those that are there are kept.

        Args:
            request: planner, spacing_mm, patch_size and recipe; None where nothing is asked for.

        Raises:
            InputError: if the plans that are there were made for another request, or none can be made for it.
        """
        if not self.plans_file.is_file() or self.overwrite:
            new = {**request, "planner": request["planner"] or _PLANNER}
            check_request(new)
            return new
        made_for = stored_request(str(self.plans_file))
        # What is not asked for is what it was: whoever fixes a dataset need not know how it was planned.
        asked = {key: value for key, value in request.items() if value is not None}
        if made_for is None or not asked.items() <= made_for.items():
            raise InputError(
                f"{self.plans_file}: was made for {made_for}, now {asked} is asked for; give `overwrite` to plan "
                "and preprocess again"
            )
        return None

    def say_kept_plans(self) -> None:
        self.report(f"[1/6] fingerprint: kept\n[2/6] plans: kept {self.plans_file}")

    def run(self, request: dict[str, Any]) -> None:
        """Makes what is missing, as `new_request` takes it.

        Raises:
            InputError: as `new_request`, or if nnU-Net refuses the dataset or a case.
        """
        new = self.new_request(request)
        if new is None:
            self.say_kept_plans()
            self._preprocess(newly_planned=False)
        else:
            records.forget_dataset_record(self.folder)
            self._plan(new)
            try:
                self._preprocess(newly_planned=True)
            except WrongCaseError:
                # Made with the case that is to be fixed or removed.
                for path in (self.plans_file, self.folder / "dataset_fingerprint.json"):
                    path.unlink()
                raise
        # nnU-Net's planning copies it too, but plans may be older than a correction of the file.
        write_json(self.folder / "dataset.json", read_dataset_json(self.raw / "dataset.json"))

    def _plan(self, request: dict[str, Any]) -> None:
        self.report("[1/6] fingerprint, with nnU-Net's check of the dataset")
        remove_half_written(self.folder / "dataset_fingerprint.json")
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{PLANS_NAME}.log"
        log.unlink(missing_ok=True)
        try:
            with pools_of_others(log):
                extract_fingerprints(
                    [self.dataset_id],
                    num_processes=self.processes,
                    check_dataset_integrity=True,
                    clean=self.overwrite,
                )
        except (AssertionError, RuntimeError) as error:
            raise InputError(f"nnU-Net's check of dataset {self.dataset_id} failed: {error}") from error
        self.report(f"[2/6] plans: {request['planner']}; what nnU-Net says of them: {log}")
        with open(log, "a") as file, redirect_stdout(file):
            plan(self.dataset_id, str(self.plans_file), request)

    def _preprocess(self, *, newly_planned: bool) -> None:
        """What is new or has changed; and what is gone is removed."""
        if self.overwrite:
            for name in self.made.names():
                self.made.forget(name)
        self.made.remove_unfinished()
        withdrawn = sorted(self.made.names() - set(self.cases))
        changes = self.made.changes(self.cases)
        if withdrawn or changes:
            records.forget_dataset_record(self.folder)
        self._withdraw(withdrawn)
        for name in changes:
            self._forget(name)
        if changes:
            self.report(f"[3/6] preprocessing {len(changes)} of {len(self.cases)} cases")
            if len(changes) < len(self.cases) or "new" not in changes.values():
                for line in in_words(changes):
                    self.report(f"      {line}")
            if not newly_planned:
                self.report("      plans are kept as they were made from the cases of then; `overwrite` plans again")
            cases = {name: self.cases[name] for name in changes}
            self.made.make(cases, self.dataset_json, processes=self.processes, check=not newly_planned)
        else:
            self.report(f"[3/6] preprocessing: kept {self.cases_folder}")
        for name, files in self.cases.items():
            self._copy_truth(name, files.label)
        seen = set(nnUNetDatasetBlosc2.get_identifiers(str(self.cases_folder)))
        if lost := sorted(set(self.cases) - seen):
            raise InputError(
                f"{self.cases_folder}: nnU-Net does not see {some(lost)} of {self.raw.name} there; rename these cases"
            )

    def _withdraw(self, names: list[str]) -> None:
        if names:
            # The folds first: whatever is interrupted then is withdrawn by the next call.
            drop_from_folds(self.folder / "splits_final.json", names)
        for name in names:
            self.report(f"      {name}: withdrawn from {self.raw.name}; removed")
            Remembered(self.folder).forget(name)
            self._forget(name)

    def _forget(self, name: str) -> None:
        self.made.forget(name)
        self._truth(name).unlink(missing_ok=True)
        forget_validation_case(self.folder, name, file_ending=self.dataset_json["file_ending"])

    def _truth(self, case: str) -> Path:
        """The label map that nnU-Net's validation compares with."""
        return self.folder / "gt_segmentations" / f"{case}{self.dataset_json['file_ending']}"

    def _copy_truth(self, case: str, label: Path) -> None:
        truth = self._truth(case)
        if not truth.is_file() or self.hashes.sha256(truth) != self.hashes.sha256(label):
            with atomic_path(truth) as temporary:
                shutil.copyfile(label, temporary)
