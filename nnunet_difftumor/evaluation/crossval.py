"""The cross-validation of a model of nnU-Net: every fold, mean and standard deviation over them, all cases pooled."""

import os
import re
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.evaluate import NSD_TOLERANCE_MM, evaluate
from nnunet_difftumor.evaluation.figures.summary import summarize
from nnunet_difftumor.evaluation.results.layout import case_from_json
from nnunet_difftumor.files import write_json
from nnunet_difftumor.nnunet_folders import PREPROCESSED, nnunet_folder

SCHEMA_VERSION = 1
_TRUTHS = "gt_segmentations"
# The figures of the table, by where they are in a summary.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "DSC": ("dsc",),
    "NSD": ("nsd",),
    "detected": ("tumor_sensitivity", "all"),
    "early": ("tumor_sensitivity", "early"),
    "FP/scan": ("false_positives_per_scan", "all"),
    "sensitivity": ("patient_sensitivity",),
    "specificity": ("patient_specificity",),
}


def crossval(
    model_folder: str | os.PathLike,
    *,
    ground_truth: str | os.PathLike | None = None,
    folds: Sequence[int] = (),
    tumor_label: int | Sequence[int] | Mapping[str, Collection[int]] | None = None,
    dataset_json: str | os.PathLike | None = None,
    organ_masks: str | os.PathLike | None = None,
    organ_label: int | Sequence[int] = (),
    match: str = "any-overlap",
    min_iou: float = 0.0,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    probabilities: bool = False,
    seed: int = 0,
    processes: int | None = None,
    output: str | os.PathLike | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Evaluates the validation of every fold of a model.

    Args:
        model_folder: TRAINER__PLANS__CONFIGURATION in nnU-Net's results, with fold_X/validation.
        ground_truth: folder of the true label maps; None: gt_segmentations in the preprocessed dataset.
        folds: numbers; none: all that are there.
        tumor_label, dataset_json, organ_masks, organ_label, match, min_iou, nsd_tolerance_mm, probabilities, seed,
            processes: as for `evaluate`, the same for every fold.
        output: JSON file for the result; None: nothing is written.
        report: gets lines about labels, and a line per fold.

    Returns:
        A dict for strict JSON: by tumor name "folds" (the summary of each), "mean" and "sd" of the main figures over
        folds (sample standard deviation; None with one fold), and "pooled", the summary of all cases together.

    Raises:
        InputError: a fold has no validation, or as `evaluate`.
    """
    folder = Path(model_folder)
    validations = _validations(folder, folds)
    truth = Path(ground_truth) if ground_truth is not None else _truth(folder)
    results = {}
    for fold, validation in validations.items():
        report(f"fold {fold}: {validation}")
        # The truth holds the cases of all folds.
        results[fold] = evaluate(
            truth,
            validation,
            tumor_label=tumor_label,
            dataset_json=dataset_json,
            organ_masks=organ_masks,
            organ_label=organ_label,
            missing="skip",
            match=match,
            min_iou=min_iou,
            nsd_tolerance_mm=nsd_tolerance_mm,
            probabilities=probabilities,
            seed=seed,
            processes=processes,
            report=report,
        )
    tumors = list(next(iter(results.values()))["tumors"])
    _check_disjoint(results, tumors[0], folder)
    content = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "model_folder": str(folder.resolve()),
        "ground_truth": str(truth.resolve()),
        "settings": next(iter(results.values()))["settings"],
        "tumors": {
            tumor: _over_folds({fold: result["tumors"][tumor] for fold, result in results.items()}, seed)
            for tumor in tumors
        },
    }
    if output is not None:
        write_json(output, content)
    return content


def table(content: Mapping[str, Any]) -> str:
    """The main figures by fold, for the terminal."""
    blocks = []
    for tumor, found in content["tumors"].items():
        lines = [f"{tumor:<14}" + "".join(f"{head:>13}" for head in COLUMNS)]
        for fold, summary in found["folds"].items():
            lines.append(
                _line(f"fold {fold}", [_value(figure_of(summary, path)["value"]) for path in COLUMNS.values()])
            )
        spread = zip(found["mean"].values(), found["sd"].values(), strict=True)
        lines.append(_line("mean +- sd", [_value(m) if sd is None else f"{m:.3f}+-{sd:.3f}" for m, sd in spread]))
        pooled = [_value(figure_of(found["pooled"], path)["value"]) for path in COLUMNS.values()]
        lines.append(_line(f"all {found['cases']} cases", pooled))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def figure_of(summary: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """An estimate in a summary, by its keys."""
    found = summary
    for key in path:
        found = found[key]
    return found


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<14}" + "".join(f"{cell:>13}" for cell in cells)


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _validations(folder: Path, folds: Sequence[int]) -> dict[int, Path]:
    """Folder of predictions by fold, sorted."""
    found = {}
    for path in folder.glob("fold_*"):
        if match := re.fullmatch(r"fold_(\d+)", path.name):
            found[int(match[1])] = path / "validation"
    if not found:
        raise InputError(
            f"{folder}: holds no fold_0, fold_1, ...; expected TRAINER__PLANS__CONFIGURATION in nnU-Net's results"
        )
    if unknown := sorted(set(folds) - set(found)):
        there = ", ".join(map(str, sorted(found)))
        raise InputError(f"`folds`: {', '.join(map(str, unknown))} not found in {folder}; there: {there}")
    chosen = {fold: found[fold] for fold in sorted(folds or found)}
    for fold, validation in chosen.items():
        if not (validation / "summary.json").is_file():
            raise InputError(
                f"{validation}: has no summary.json, so that the validation of fold {fold} is not finished; run "
                f"`nnUNetv2_train ... {fold} --val`, or name the others with `folds`"
            )
    return chosen


def _truth(folder: Path) -> Path:
    dataset = folder.resolve().parent.name
    truth = nnunet_folder(PREPROCESSED, instead="name the true label maps with `ground_truth`") / dataset / _TRUTHS
    if not truth.is_dir():
        raise InputError(f"{truth}: not found; name the folder of the true label maps with `ground_truth`")
    return truth


def _check_disjoint(results: Mapping[int, Mapping[str, Any]], tumor: str, folder: Path) -> None:
    """A case that two folds validate would count twice among all cases."""
    seen: dict[str, int] = {}
    for fold, result in results.items():
        for case in result["tumors"][tumor]["cases"]:
            if case in seen:
                raise InputError(
                    f"{folder}: folds {seen[case]} and {fold} both predicted {case}; they are of different splits, "
                    "name those that belong together with `folds`"
                )
            seen[case] = fold


def _over_folds(folds: Mapping[int, Mapping[str, Any]], seed: int) -> dict[str, Any]:
    summaries = {fold: found["summary"] for fold, found in folds.items()}
    values = {
        name: [value for s in summaries.values() if (value := figure_of(s, path)["value"]) is not None]
        for name, path in COLUMNS.items()
    }
    cases = {name: content for found in folds.values() for name, content in found["cases"].items()}
    patients = [f"patient {c['patient']}" if "patient" in c else f"case {name}" for name, c in cases.items()]
    pooled = summarize([case_from_json(content) for content in cases.values()], patients=patients, seed=seed)
    return {
        "folds": {str(fold): summary for fold, summary in summaries.items()},
        "mean": {name: statistics.fmean(some) if some else None for name, some in values.items()},
        "sd": {name: statistics.stdev(some) if len(some) > 1 else None for name, some in values.items()},
        "cases": len(cases),
        "pooled": pooled,
    }
