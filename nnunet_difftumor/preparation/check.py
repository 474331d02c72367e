"""`check`: everything that can be wrong with a dataset without anything failing, case by case."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.checks.arrays import constant_array
from nnunet_difftumor.checks.drawn import stale_bank, unfit_weights
from nnunet_difftumor.checks.examine import Examined, Remembered, content_key, examination_key, examine
from nnunet_difftumor.checks.finding import ERROR, NOTE, Finding
from nnunet_difftumor.checks.label_content import lesions_in_healthy_case
from nnunet_difftumor.checks.leaks import same_scans, same_scans_elsewhere
from nnunet_difftumor.checks.stale import stale_data
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.preparation.datasets import dataset_folders
from nnunet_difftumor.preparation.organs import find_organs
from nnunet_difftumor.prepared.config import FILE_NAME, PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.made_from import records
from nnunet_difftumor.prepared.made_from.hashes import FileHashes
from nnunet_difftumor.prepared.made_from.raw_files import RawFiles, check_case_list, raw_cases
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_plans_file, read_pools, read_splits
from nnunet_difftumor.prepared.pools import pool_list, pools_folder
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.worker_processes import worker_processes

_CONFIGURATION = "3d_fullres"
# Fewer are looked at sooner than processes start.
_WORTH_PROCESSES = 4


def check(
    dataset_id: int,
    *,
    against: Sequence[int] = (),
    processes: int | None = None,
    output: str | os.PathLike | None = None,
    report: Callable[[str], None] = print,
) -> list[Finding]:
    """Looks for data, banks and weights that are wrong although nothing fails.

    What was seen of a case is remembered in the preprocessed dataset as long as its files stay the same.

    Args:
        dataset_id: of a dataset in nnUNet_raw; if it is prepared, what was prepared is looked at too.
        against: further datasets in nnUNet_raw, none of whose scans may be in this one, such as test sets.
        processes: that look at cases; None: one per core, at most 8.
        output: JSON file for the findings; None: nothing is written.
        report: gets a line per finding, and one that counts them.

    Returns:
        The findings, whatever is wrong for certain first.

    Raises:
        InputError: if there is no such dataset, or its dataset.json is wrong.
    """
    raw, folder = dataset_folders(dataset_id)
    checked = _Checked(raw, folder, processes or min(8, os.cpu_count() or 1))
    others = [dataset_folders(other, argument="against") for other in against]
    findings = checked.findings()
    for other_raw, other_folder in others:
        other = _Checked(other_raw, other_folder, checked.processes)
        findings += same_scans_elsewhere(checked.prints(), other.prints(), other_raw.name)
    checked.remember(findings)
    findings.sort(key=lambda finding: (finding.severity != ERROR, finding.severity == NOTE, finding.case))
    for finding in findings:
        report(finding.line())
    cases = len(checked.cases)
    wrong = [finding for finding in findings if finding.severity != NOTE]
    report(f"{raw.name}: {cases} cases, {len(wrong)} findings" if wrong else f"{raw.name}: {cases} cases, all well")
    if output is not None:
        content = {"version": __version__, "dataset": raw.name, "cases": cases, "against": [r.name for r, _ in others]}
        write_json(output, {**content, "findings": [asdict(finding) for finding in findings]})
    return findings


@dataclass(frozen=True)
class _Case:
    """A raw case to be looked at: its files, and the key under which what was seen is remembered."""

    files: RawFiles
    hashes: dict[str, str]
    key: str


class _Checked:
    """A dataset that is looked at.

    Args:
        raw, folder: of the raw and of the preprocessed dataset.
        processes: that look at cases.
    """

    def __init__(self, raw: Path, folder: Path, processes: int) -> None:
        self.raw, self.folder, self.processes = raw, folder, processes
        self.hashes: FileHashes = records.file_hashes(folder)
        self.remembered = Remembered(folder)
        self.dataset_json = read_dataset_json(raw / "dataset.json")
        self.config = DiffTumorConfig.load(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else None
        self.about, self.pooled = self._listed()
        self.organs = self._organs()
        self.cases = self._cases()
        self._examined: dict[str, Examined] | None = None

    def findings(self) -> list[Finding]:
        """All, in no order."""
        found = list(self.about)
        for case, examined in self.examined().items():
            found += examined.findings
            if case in self.pooled:
                lesions = [value for organ in self.organs for value in (organ.tumor_label, *organ.avoid_labels)]
                found += lesions_in_healthy_case(case, examined.labels, lesions)
        found += same_scans(self.prints(), self._splits())
        found += self._prepared()
        self.hashes.save()
        return found

    def prints(self) -> dict[str, Any]:
        """Fingerprints of all cases that could be read."""
        return {case: seen.fingerprint for case, seen in self.examined().items() if seen.fingerprint is not None}

    def examined(self) -> dict[str, Examined]:
        """What was seen of each case, now or before."""
        if self._examined is None:
            known = {case: self.remembered.read(f"cases/{case}", entry.key) for case, entry in self.cases.items()}
            missing = [case for case, seen in known.items() if seen is None]
            known |= self._look_at(missing)
            self._examined = {case: seen for case, seen in known.items() if seen is not None}
            self.hashes.save()
        return self._examined

    def remember(self, findings: Sequence[Finding]) -> None:
        """For the trainings that follow: what is wrong with cases, which no look at the files alone tells."""
        keys = {case: content_key(entry.hashes) for case, entry in self.cases.items()}
        kinds = {finding.kind for seen in self.examined().values() for finding in seen.findings} | {"same-scan"}
        self.remembered.write_result(keys, [finding for finding in findings if finding.kind in kinds])

    def _look_at(self, missing: Sequence[str]) -> dict[str, Examined]:
        jobs = [(case, self.cases[case].files.images[0], self.cases[case].files.label, self.organs) for case in missing]
        seen = {}
        quiet = None if jobs else True
        alone = self.processes == 1 or len(jobs) < _WORTH_PROCESSES
        with nullcontext() if alone else worker_processes(min(self.processes, len(jobs))) as executor:
            results = map(_examine, jobs) if executor is None else executor.map(_examine, jobs)
            for case, found in zip(missing, tqdm(results, total=len(jobs), unit="case", disable=quiet), strict=True):
                self.remembered.write(f"cases/{case}", self.cases[case].key, found)
                seen[case] = found
        return seen

    def _listed(self) -> tuple[list[Finding], dict[str, RawFiles]]:
        """Findings about the list of cases, and the cases of healthy pools."""
        found = []
        try:
            for note in check_case_list(self.raw, self.dataset_json, raw_cases(self.raw, self.dataset_json)):
                found.append(Finding("left-out", "", "warning", note, ""))
        except InputError as error:
            found.append(Finding("left-out", "", ERROR, str(error), ""))
        pooled: dict[str, RawFiles] = {}
        for pool in read_pools(pool_list(self.folder)):
            place = self.raw.parent / pool
            try:
                cases = raw_cases(place, read_dataset_json(place / "dataset.json"))
            except InputError as error:
                found.append(Finding("left-out", "", NOTE, str(error), ""))
                continue
            pooled |= {f"{pool}_{case}": files for case, files in cases.items()}
        return found, pooled

    def _organs(self) -> Sequence[Organ]:
        if self.config is not None:
            return self.config.organs
        try:
            return find_organs(self.dataset_json)
        except InputError as error:
            self.about.append(Finding("no-organs", "", NOTE, f"organs are not looked at: {error}", ""))
            return ()

    def _cases(self) -> dict[str, _Case]:
        cases = {**raw_cases(self.raw, self.dataset_json), **self.pooled}
        found = {}
        unread = sum(not self.hashes.knows(p) for files in cases.values() for p in files.all if p.is_file())
        with tqdm(total=unread, desc="reading raw files", unit="file", disable=None if unread else True) as progress:
            for case, files in cases.items():
                progress.update(sum(not self.hashes.knows(path) for path in files.all if path.is_file()))
                if all(path.is_file() for path in files.all):
                    hashes = records.hashed(files.all, self.hashes)
                    found[case] = _Case(files, hashes, examination_key(hashes, self.organs))
        self.hashes.save()
        return found

    def _splits(self) -> list[dict[str, Any]]:
        path = self.folder / "splits_final.json"
        return read_splits(path) if path.is_file() else []

    def _prepared(self) -> list[Finding]:
        """About what `prepare` made, if it did."""
        plans_file = self.folder / f"{PLANS_NAME}.json"
        if self.config is None or not plans_file.is_file():
            return [
                Finding("not-prepared", "", NOTE, f"{self.raw.name} is not prepared: only raw data are looked at", "")
            ]
        plans = read_plans_file(plans_file)
        arrays = plans["configurations"][_CONFIGURATION]["data_identifier"]
        found = stale_data(
            self.folder, plans=plans, configuration=_CONFIGURATION, config=self.config, hashes=self.hashes
        )
        again = "run `difftumor prepare` again, which fixes it"
        damaged = {finding.case for finding in found if finding.kind == "damaged"}
        for case, record in tqdm(records.read_case_records(self.folder).items(), unit="preprocessed", disable=None):
            pooled = case in self.pooled
            place = (pools_folder(self.folder) if pooled else self.folder) / arrays
            if case in damaged:
                continue
            key = examination_key({name: digest for name, (_, digest) in record.arrays.items()}, ())
            found += self._constant(case, place, key, again)
        found += unfit_weights(self.config, plans)
        if self.config.bank_folder is not None and Path(self.config.bank_folder).is_dir():
            bases = sorted({case for split in self._splits() for case in split.get("synthesis_bases", ())})
            bank, place = Path(self.config.bank_folder), self.folder / arrays
            found += stale_bank(bank, place, bases, plans=plans, configuration=_CONFIGURATION)
        return found

    def _constant(self, case: str, place: Path, key: str, again: str) -> tuple[Finding, ...]:
        def look() -> Examined:
            return Examined(tuple(constant_array(case, place, again)), None, ())

        return self.remembered.get(f"preprocessed/{case}", key, look).findings


def _examine(job: tuple[str, Path, Path, Sequence[Organ]]) -> Examined:
    case, image, label, organs = job
    return examine(case, image, label, organs=organs)
