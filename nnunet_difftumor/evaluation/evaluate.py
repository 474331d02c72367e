"""Evaluates a folder of predicted label maps against the folder of the true ones."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import read_label_grid, read_labels
from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.evaluation.case_files import CaseFiles, find_case_files
from nnunet_difftumor.evaluation.challenges.catalogue import find_challenge
from nnunet_difftumor.evaluation.challenges.challenge import Challenge
from nnunet_difftumor.evaluation.figures.bootstrap import RESAMPLES
from nnunet_difftumor.evaluation.figures.curves import FALSE_POSITIVES_PER_SCAN
from nnunet_difftumor.evaluation.figures.summary import summarize
from nnunet_difftumor.evaluation.groups import NOT_STATED, CaseTable, read_case_table
from nnunet_difftumor.evaluation.label_maps import check_label_folder
from nnunet_difftumor.evaluation.labels import all_labels, find_dataset_json, ignore_label, tumor_labels
from nnunet_difftumor.evaluation.measures.candidates import THRESHOLD
from nnunet_difftumor.evaluation.measures.case import BANDS_MM, CaseResult, measure
from nnunet_difftumor.evaluation.measures.matching import CONNECTIVITY, RULES, MatchingRule
from nnunet_difftumor.evaluation.probabilities import ProbabilityChannels, check_agreement, load_probability
from nnunet_difftumor.evaluation.results.layout import SCHEMA_VERSION, case_to_json
from nnunet_difftumor.evaluation.results.writing import check_outputs, write_results
from nnunet_difftumor.evaluation.truth import find_truth
from nnunet_difftumor.worker_processes import worker_processes

NSD_TOLERANCE_MM = 2.0
_MOST_PROCESSES, _CASES_WORTH_A_PROCESS = 8, 8


def evaluate(
    ground_truth: str | os.PathLike,
    prediction: str | os.PathLike,
    *,
    tumor_label: int | Sequence[int] | Mapping[str, Collection[int]] | None = None,
    dataset_json: str | os.PathLike | None = None,
    organ_masks: str | os.PathLike | None = None,
    organ_label: int | Sequence[int] = (),
    missing: str = "refuse",
    match: str = "any-overlap",
    min_iou: float = 0.0,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    probabilities: bool = False,
    case_table: str | os.PathLike | None = None,
    challenge: str | None = None,
    challenge_tolerance_mm: float | None = None,
    seed: int = 0,
    processes: int | None = None,
    outputs: str | os.PathLike | Sequence[str | os.PathLike] = (),
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compares label maps of the same file names, case by case and over all cases.

    A tumor is a connected component (26 neighbours) of the true mask, a finding one of the predicted mask. When a
    finding counts for a tumor is said by `match`; a finding that counts for none is a false positive, however small.
    Voxels of nnU-Net's label ignore are left out of both masks before anything is counted; surfaces end where they
    begin. docs/evaluate.md has the layout of the result, docs/statistics.md every definition.

    Args:
        ground_truth, prediction: folders of label maps: .nii.gz, .nii, .mha or .nrrd. For the validation of a
            label-free training, the labels of its scans with synthetic tumors are found if those without are given.
        tumor_label: value, or values, of the tumors in the label maps, each on its own; or values by name; None: the
            labels that `dataset_json` names tumor, cancer or lesion.
        dataset_json: nnU-Net's file; None: the one that nnU-Net put to the predictions. Its label ignore counts even
            where `tumor_label` is given.
        organ_masks: folder of label maps of the same names; predictions outside the organ are dropped before anything
            is counted. The masks must include the organ's tumors.
        organ_label: value, or values, of the organ in `organ_masks` (default: all but 0). Without `organ_masks` they
            are values in the ground truth, and its tumors belong to the organ.
        missing: what becomes of true label maps without a prediction: "refuse", "skip" (left out) or "empty" (counted
            as predictions without tumors).
        match: "any-overlap", "iou" or "one-to-one", see `RULES`.
        min_iou: least intersection over union of a match, 0 to 1, for "iou" and "one-to-one".
        nsd_tolerance_mm: surfaces that are not farther apart count as the same.
        probabilities: also read CASE.npz beside the predictions (`nnUNetv2_predict --save_probabilities`), for FROC,
            average precision and patient-level AUC.
        case_table: CSV with a column `case`, perhaps `patient` (intervals are over patients), and others, whose values
            are groups with figures of their own.
        challenge: also the scores of this challenge, one of `NAMES` of challenges.catalogue, by its own definitions: of
            the label maps as they are, whatever is said of organs, matching and label ignore.
        challenge_tolerance_mm: of the normalized surface distance; for tasks of the decathlon, which need it.
        seed: of the bootstrap.
        processes: that measure cases; None: one per core and 8 cases, at most 8.
        outputs: files for the result, by suffix: .json (everything), .csv (a row per case), .md and .tex (tables).
        report: gets lines that say which labels were taken, and from where.

    Returns:
        A dict for strict JSON: settings, and per tumor name the summary (see `summarize`), groups and cases; with
        `challenge` also its scores (see `Challenge.result`).

    Raises:
        InputError: a folder or counterpart is missing, or a file is broken or lies on another grid.
    """
    if nsd_tolerance_mm <= 0:
        raise InputError(f"`nsd_tolerance_mm`: expected more than 0 mm, got {nsd_tolerance_mm:g}")
    if processes is not None and processes < 1:
        raise InputError(f"`processes` is {processes}, expected at least 1")
    if seed < 0:
        raise InputError(f"`seed` is {seed}, expected at least 0")
    chosen = find_challenge(challenge, tolerance_mm=challenge_tolerance_mm)
    files_of_result = check_outputs([outputs] if isinstance(outputs, str | os.PathLike) else outputs)
    for folder in (ground_truth, prediction):
        check_label_folder(folder)
    ground_truth = find_truth(ground_truth, prediction, report=report)
    labels = _choose_labels(prediction, tumor_label, dataset_json, report)
    if chosen is not None and tumor_label is None:
        chosen.check_tumors(labels.tumors)
    organ_labels = (organ_label,) if isinstance(organ_label, int) else tuple(organ_label)
    files = find_case_files(
        ground_truth, prediction, organ_masks=organ_masks, missing=missing, probabilities=probabilities
    )
    table = CaseTable() if case_table is None else read_case_table(case_table, files)
    measured = _Measured(
        labels,
        organ_labels,
        nsd_tolerance_mm,
        MatchingRule(match, min_iou),
        _channels(labels, prediction, dataset_json) if probabilities else None,
        chosen,
    )
    cases: dict[str, dict[str, CaseResult]] = {tumor: {} for tumor in labels.tumors}
    scores: dict[str, dict[str, Any]] = {}
    for name, found in _each(measured.of, files, processes):
        for tumor, of_tumor in found.tumors.items():
            cases[tumor][name] = of_tumor
        scores[name] = found.scores
    result = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "ground_truth": str(Path(ground_truth).resolve()),
        "prediction": str(Path(prediction).resolve()),
        "settings": measured.settings()
        | {
            "organ_masks": str(Path(organ_masks).resolve()) if organ_masks is not None else None,
            "missing": missing,
            "counted_as_empty": sorted(name for name, of_case in files.items() if of_case.prediction is None),
            "case_table": str(Path(case_table).resolve()) if case_table is not None else None,
            "bootstrap": {"resamples": RESAMPLES, "seed": seed, "interval": "95 % percentile, over patients"},
        },
        "tumors": {tumor: _of_tumor(cases[tumor], values, table, seed) for tumor, values in labels.tumors.items()},
    }
    if chosen is not None:
        result["challenge"] = chosen.result(scores)
    write_results(result, files_of_result)
    return result


@dataclass(frozen=True)
class _Labels:
    """What is evaluated.

    Attributes:
        tumors: the values of each, by its name.
        ignored: the value that is left out, if any.
        declared: all values that may occur; None: any.
    """

    tumors: Mapping[str, Collection[int]]
    ignored: int | None
    declared: frozenset[int] | None


def _choose_labels(
    prediction: str | os.PathLike,
    tumor_label: int | Sequence[int] | Mapping[str, Collection[int]] | None,
    dataset_json: str | os.PathLike | None,
    report: Callable[[str], None],
) -> _Labels:
    """Values that were given stand by themselves; nnU-Net's file, if there is one, still says what to leave out."""
    page = Path(dataset_json) if dataset_json is not None else find_dataset_json(prediction)
    declared = None
    if tumor_label is None:
        tumors: Mapping[str, Collection[int]] = tumor_labels(page)
        declared = frozenset(value for values in all_labels(page).values() for value in values)
        report(f"labels of {page}")
    elif isinstance(tumor_label, Mapping):
        tumors = tumor_label
    else:
        given = (tumor_label,) if isinstance(tumor_label, int) else tumor_label
        tumors = {f"label {value}": (value,) for value in given}
    if not tumors or not all(tumors.values()):
        raise InputError(f"`tumor_label`: expected at least one value per name, got {dict(tumors)}")
    ignored = ignore_label(page) if tumor_label is None or page.is_file() else None
    for name, values in tumors.items():
        if ignored in values:
            raise InputError(f"`tumor_label`: {name} has the value {ignored}, which is the dataset's label ignore")
    if ignored is not None:
        report(f"left out: voxels of value {ignored} in GT, the label ignore of {page}")
    return _Labels(tumors, ignored, declared)


@dataclass(frozen=True)
class _Channels:
    """Of probabilities: how many there are, and which belong to each tumor."""

    count: int
    of_tumors: Mapping[str, Collection[int]]


def _channels(labels: _Labels, prediction: str | os.PathLike, dataset_json: str | os.PathLike | None) -> _Channels:
    page = Path(dataset_json) if dataset_json is not None else find_dataset_json(prediction)
    channels = ProbabilityChannels(page)
    of_tumors = {tumor: channels.of(values, tumor=tumor) for tumor, values in labels.tumors.items()}
    return _Channels(channels.count, of_tumors)


@dataclass(frozen=True)
class _Found:
    """Of one case: what was measured of each tumor, and the challenge's scores, if any are asked for."""

    tumors: Mapping[str, CaseResult]
    scores: dict[str, Any]


@dataclass(frozen=True)
class _Measured:
    """What is measured of every case."""

    labels: _Labels
    organ_labels: Sequence[int]
    nsd_tolerance_mm: float
    rule: MatchingRule
    channels: _Channels | None
    challenge: Challenge | None

    def settings(self) -> dict[str, Any]:
        """What decides the figures of a case, JSON-ready."""
        ranked = {"threshold": THRESHOLD, "rates": list(FALSE_POSITIVES_PER_SCAN)}
        return {
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "connectivity": CONNECTIVITY,
            "match": {"rule": self.rule.name, "min_iou": self.rule.min_iou, "meaning": RULES[self.rule.name]},
            "size_bands_mm": {
                band: [low, high if np.isfinite(high) else None] for band, (low, high) in BANDS_MM.items()
            },
            "organ_labels": sorted(self.organ_labels),
            "ignore_label": self.labels.ignored,
            "candidates": None if self.channels is None else ranked,
        }

    def of(self, files: CaseFiles) -> _Found:
        truth = read_label_grid(files.truth)
        _check_declared(truth.hu, self.labels.declared, files.truth)
        if files.prediction is None:
            predicted = np.zeros(truth.hu.shape, np.uint8)
        else:
            predicted = read_labels(files.prediction, like=truth)
            _check_declared(predicted, self.labels.declared, files.prediction)
        organ_map = read_labels(files.organ, like=truth) if files.organ is not None else None
        counted = self._counted(truth.hu, organ_map)
        found = {}
        for tumor, values in self.labels.tumors.items():
            mask = np.isin(predicted, list(values))
            found[tumor] = measure(
                np.isin(truth.hu, list(values)),
                mask & counted,
                spacing_mm=truth.spacing_mm,
                nsd_tolerance_mm=self.nsd_tolerance_mm,
                rule=self.rule,
                probability=self._probability(files, tumor, mask, counted),
            )
        scores = {} if self.challenge is None else self.challenge.score(files, truth, predicted)
        return _Found(found, scores)

    def _probability(self, files: CaseFiles, tumor: str, mask: np.ndarray, counted: np.ndarray) -> np.ndarray | None:
        if self.channels is None:
            return None
        if files.probabilities is None:  # a case that counts as a prediction without tumors
            return np.zeros(mask.shape, np.float32)
        channels, count = self.channels.of_tumors[tumor], self.channels.count
        probability = load_probability(files.probabilities, channels, count=count, shape=mask.shape)
        check_agreement(files.probabilities, probability, mask)
        return probability * counted

    def _counted(self, truth: np.ndarray, organ_map: np.ndarray | None) -> np.ndarray:
        """Boolean (z, y, x), or one value for all voxels: where predictions count."""
        if organ_map is not None:
            organ = np.isin(organ_map, list(self.organ_labels)) if self.organ_labels else organ_map > 0
        elif self.organ_labels:
            everything = {*self.organ_labels, *(value for values in self.labels.tumors.values() for value in values)}
            organ = np.isin(truth, list(everything))
        else:
            organ = np.array(True)
        return organ if self.labels.ignored is None else organ & (truth != self.labels.ignored)


def _check_declared(labels: np.ndarray, declared: Collection[int] | None, path: Path) -> None:
    """Refuses label maps with values that dataset.json does not declare.

    Raises:
        InputError: names the file and the values.
    """
    if declared is None:
        return
    unknown = np.setdiff1d(np.unique(labels), [0, *declared])
    if unknown.size:
        raise InputError(
            f"{path}: has the values {some(list(map(str, unknown)))}, which dataset.json does not declare; name the "
            "right file with `dataset_json`, or the values of tumors with `tumor_label`"
        )


def _each(
    function: Callable[[CaseFiles], _Found], files: Mapping[str, CaseFiles], processes: int | None
) -> Iterator[tuple[str, _Found]]:
    """The results of all cases in their order; few are under way at a time, so that memory does not grow with cases."""
    # A process takes as long to start as some cases take.
    worth = max(1, len(files) // _CASES_WORTH_A_PROCESS)
    count = min(processes or min(os.cpu_count() or 1, _MOST_PROCESSES, worth), len(files))
    bar = partial(tqdm, total=len(files), desc="evaluate", unit="case", disable=None)
    if count == 1:
        yield from bar(((name, function(of_case)) for name, of_case in files.items()))
        return
    with worker_processes(count) as pool:
        # The label maps stay in the workers: what comes back has some kB.
        yield from bar(zip(files, pool.map(function, files.values()), strict=True))


def _of_tumor(cases: Mapping[str, CaseResult], values: Collection[int], table: CaseTable, seed: int) -> dict[str, Any]:
    def summary(names: Sequence[str]) -> dict[str, Any]:
        some = [cases[name] for name in names]
        return summarize(some, patients=[table.patient_of(name) for name in names], seed=seed)

    return {
        "label_values": sorted(values),
        "summary": summary(list(cases)),
        "groups": {
            column: {value: summary(names) for value, names in _by_value(of_case, cases).items()}
            for column, of_case in table.groups.items()
        },
        "cases": {name: case_to_json(case, patient=table.patients.get(name)) for name, case in cases.items()},
    }


def _by_value(of_case: Mapping[str, str], cases: Collection[str]) -> dict[str, list[str]]:
    """Names of cases by the value of a column, sorted; cases without a row are those of which nothing is stated."""
    found: dict[str, list[str]] = {}
    for name in cases:
        found.setdefault(of_case.get(name, NOT_STATED), []).append(name)
    return dict(sorted(found.items()))
