"""Evaluates a folder of predicted label maps against the folder of the true ones."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import read_label_grid, read_labels
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.comparison import BANDS_MM, CONNECTIVITY, CaseResult, Lesion, compare
from nnunet_difftumor.evaluation.label_maps import check_label_folder, label_maps, organ_maps_for, some
from nnunet_difftumor.evaluation.labels import find_dataset_json, ignore_label, tumor_labels
from nnunet_difftumor.evaluation.summary import RESAMPLES, summarize
from nnunet_difftumor.evaluation.truth import check_truth
from nnunet_difftumor.files import write_json

NSD_TOLERANCE_MM = 2.0
_DEFINITIONS = {
    "connectivity": CONNECTIVITY,
    "detected": "at least one voxel of the tumor is predicted",
    "size_bands_mm": {band: [low, high if np.isfinite(high) else None] for band, (low, high) in BANDS_MM.items()},
}


def evaluate(
    ground_truth: str | os.PathLike,
    prediction: str | os.PathLike,
    *,
    tumor_label: int | Sequence[int] | Mapping[str, Collection[int]] | None = None,
    dataset_json: str | os.PathLike | None = None,
    organ_masks: str | os.PathLike | None = None,
    organ_label: int | Sequence[int] = (),
    predicted_only: bool = False,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    seed: int = 0,
    output: str | os.PathLike | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compares label maps of the same file names, case by case and over all cases.

    A tumor is a connected component (26 neighbours) of the true mask; it is detected if at least one of its voxels is
    predicted. A false positive is a component of the prediction without any voxel of a true tumor, however small.
    Voxels of nnU-Net's label ignore are left out of both masks before anything is counted; surfaces end where they
    begin.

    Args:
        ground_truth, prediction: folders of label maps: .nii.gz, .nii, .mha or .nrrd.
        tumor_label: value, or values, of the tumors in the label maps, each on its own; or values by name; None: the
            labels that `dataset_json` names tumor, cancer or lesion.
        dataset_json: nnU-Net's file; None: the one that nnU-Net put to the predictions. Its label ignore counts even
            where `tumor_label` is given.
        organ_masks: folder of label maps of the same names; predictions outside the organ are dropped before anything
            is counted. The masks must include the organ's tumors.
        organ_label: value, or values, of the organ in `organ_masks` (default: all but 0). Without `organ_masks` they
            are values in the ground truth, and its tumors belong to the organ.
        predicted_only: evaluate the cases that were predicted, instead of asking for all.
        nsd_tolerance_mm: surfaces that are not farther apart count as the same.
        seed: of the bootstrap.
        output: JSON file for the result; None: nothing is written.
        report: gets lines that say which labels were taken, and from where.

    Returns:
        A dict for strict JSON: settings, and per tumor name the summary (see `summarize`) and the cases.

    Raises:
        InputError: a folder or counterpart is missing, or a file is broken or lies on another grid.
    """
    if nsd_tolerance_mm <= 0:
        raise InputError(f"`nsd_tolerance_mm`: expected more than 0 mm, got {nsd_tolerance_mm:g}")
    if seed < 0:
        raise InputError(f"`seed` is {seed}, expected at least 0")
    for folder in (ground_truth, prediction):
        check_label_folder(folder)
    check_truth(ground_truth, prediction)
    labels = _choose_labels(prediction, tumor_label, dataset_json, report)
    organ_labels = (organ_label,) if isinstance(organ_label, int) else tuple(organ_label)
    files = _matched_files(ground_truth, prediction, organ_masks, predicted_only=predicted_only)
    cases: dict[str, dict[str, CaseResult]] = {tumor: {} for tumor in labels.tumors}
    for name, paths in tqdm(files.items(), desc="evaluate", unit="case", disable=None):
        for tumor, found in _compared(paths, labels, organ_labels, nsd_tolerance_mm).items():
            cases[tumor][name] = found
    settings = {
        "nsd_tolerance_mm": nsd_tolerance_mm,
        **_DEFINITIONS,
        "organ_masks": str(Path(organ_masks).resolve()) if organ_masks is not None else None,
        "organ_labels": sorted(organ_labels),
        "ignore_label": labels.ignored,
        "bootstrap": {"resamples": RESAMPLES, "seed": seed, "interval": "95 % percentile, over cases"},
    }
    result = {
        "version": __version__,
        "ground_truth": str(Path(ground_truth).resolve()),
        "prediction": str(Path(prediction).resolve()),
        "settings": settings,
        "tumors": {tumor: _of_tumor(cases[tumor], values, seed) for tumor, values in labels.tumors.items()},
    }
    if output is not None:
        write_json(output, result)
    return result


@dataclass(frozen=True)
class _Labels:
    """What is evaluated: the values of each tumor, by its name, and the value that is left out, if any."""

    tumors: Mapping[str, Collection[int]]
    ignored: int | None


def _choose_labels(
    prediction: str | os.PathLike,
    tumor_label: int | Sequence[int] | Mapping[str, Collection[int]] | None,
    dataset_json: str | os.PathLike | None,
    report: Callable[[str], None],
) -> _Labels:
    """Values that were given stand by themselves; nnU-Net's file, if there is one, still says what to leave out."""
    page = Path(dataset_json) if dataset_json is not None else find_dataset_json(prediction)
    if tumor_label is None:
        tumors: Mapping[str, Collection[int]] = tumor_labels(page)
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
    return _Labels(tumors, ignored)


@dataclass(frozen=True)
class _CaseFiles:
    """Of one case: true and predicted label map, and that of the organ, if any."""

    truth: Path
    prediction: Path
    organ: Path | None


def _matched_files(
    ground_truth: str | os.PathLike,
    prediction: str | os.PathLike,
    organ_masks: str | os.PathLike | None,
    *,
    predicted_only: bool,
) -> dict[str, _CaseFiles]:
    truths, predictions = label_maps(ground_truth), label_maps(prediction)
    names = _common_names(truths, predictions, predicted_only=predicted_only)
    organs = organ_maps_for(names, organ_masks, prediction) if organ_masks is not None else {}
    return {name: _CaseFiles(truths[name], predictions[name], organs.get(name)) for name in names}


def _compared(
    files: _CaseFiles, labels: _Labels, organ_labels: Sequence[int], nsd_tolerance_mm: float
) -> dict[str, CaseResult]:
    """By tumor name."""
    truth = read_label_grid(files.truth)
    predicted = read_labels(files.prediction, like=truth)
    organ_map = read_labels(files.organ, like=truth) if files.organ is not None else None
    counted = _counted(truth.hu, organ_map, organ_labels, labels)
    return {
        tumor: compare(
            np.isin(truth.hu, list(values)),
            np.isin(predicted, list(values)) & counted,
            spacing_mm=truth.spacing_mm,
            nsd_tolerance_mm=nsd_tolerance_mm,
        )
        for tumor, values in labels.tumors.items()
    }


def _of_tumor(cases: Mapping[str, CaseResult], values: Collection[int], seed: int) -> dict[str, Any]:
    return {
        "label_values": sorted(values),
        "summary": summarize(list(cases.values()), seed=seed),
        "cases": {name: _as_json(case) for name, case in cases.items()},
    }


def _counted(
    truth: np.ndarray, organ_map: np.ndarray | None, organ_labels: Sequence[int], labels: _Labels
) -> np.ndarray:
    """Boolean (z, y, x), or one value for all voxels: where predictions count."""
    if organ_map is not None:
        organ = np.isin(organ_map, list(organ_labels)) if organ_labels else organ_map > 0
    elif organ_labels:
        everything = {*organ_labels, *(value for values in labels.tumors.values() for value in values)}
        organ = np.isin(truth, list(everything))
    else:
        organ = np.array(True)
    return organ if labels.ignored is None else organ & (truth != labels.ignored)


def _common_names(truths: Mapping[str, Path], predictions: Mapping[str, Path], *, predicted_only: bool) -> list[str]:
    without_truth = sorted(predictions.keys() - truths.keys())
    without_prediction = sorted(truths.keys() - predictions.keys())
    if without_truth:
        folder = next(iter(truths.values())).parent
        raise InputError(f"{folder}: no ground truth for {some(without_truth)}; the file names must be the same")
    if without_prediction and not predicted_only:
        folder = next(iter(predictions.values())).parent
        raise InputError(
            f"{folder}: no prediction for {some(without_prediction)}; predict them, or evaluate what is there with "
            "`predicted_only`"
        )
    return sorted(predictions)


def _as_json(case: CaseResult) -> dict:
    def lesion(item: Lesion) -> dict:
        return {"diameter_mm": round(item.diameter_mm, 3), "band": item.band}

    return {
        "dsc": case.dsc,
        "nsd": case.nsd,
        "tumors": [lesion(tumor) | {"detected": tumor.hit} for tumor in case.tumors],
        "false_positives": [lesion(finding) for finding in case.false_positives],
    }
