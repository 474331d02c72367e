"""LiTS, the Liver Tumor Segmentation Benchmark of 2017.

Sources: Bilic et al., Medical Image Analysis 84 (2023) 102680; the scoring program
github.com/PatrickChrist/lits-challenge-scoring (program/evaluate.py, program/helpers/calc_metric.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_difftumor.evaluation.challenges.challenge import Challenge, mean
from nnunet_difftumor.evaluation.challenges.lits_lesions import LesionGroups
from nnunet_difftumor.evaluation.challenges.voxel_surfaces import surface_errors
from nnunet_difftumor.evaluation.measures.masks import dice

LIVER, TUMOR = 1, 2
# What the program puts where a distance or a volume has nothing to be measured against.
NOT_MEASURABLE = 9001.0
_WORST = {"dice": 0.0, "jaccard": 0.0, "voe": 1.0} | dict.fromkeys(
    ("rvd", "assd_mm", "rmsd_mm", "mssd_mm"), NOT_MEASURABLE
)
_OVERLAPS = {"": 0.5, "_greater_zero": 0.0}


def of_case(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, Any]:
    """Scores of a scan, see `Challenge`.

    Returns:
        `lesion` and `liver` with their Dice and voxels; for lesions how many there are and are detected, and the
        figures of each detected group; for the liver its figures; and `tumor_burden_error`.
    """
    # As nibabel gives the program its arrays: the numbers of lesions follow the order of the axes.
    truth, prediction, spacing_mm = truth.T, prediction.T, tuple(spacing_mm)[::-1]
    true_lesions, lesions = truth == TUMOR, prediction == TUMOR
    groups = LesionGroups.of(true_lesions, lesions)
    detected = {name: groups.detected(overlap) for name, overlap in _OVERLAPS.items()}
    count, names = detected[""]
    true_liver, liver = truth >= LIVER, prediction >= LIVER
    if not (prediction == LIVER).any():  # tumors without any liver count as no liver
        liver = np.zeros_like(liver)
    return {
        "lesion": _voxels(true_lesions, lesions)
        | {"true": groups.true_count, "predicted": groups.found_count}
        | {f"detected{name}": number for name, (number, _) in detected.items()}
        | {"of_detected": [_figures(*groups.masks_of(name), spacing_mm) for name in names] if count > 0 else []},
        "liver": _voxels(true_liver, liver) | _figures(true_liver, liver, spacing_mm),
        "tumor_burden_error": _tumor_burden(truth) - (_tumor_burden(prediction) if liver.any() else NOT_MEASURABLE),
    }


def over_cases(cases: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Scores over all scans, see `Challenge`."""
    lesions, livers = [case["lesion"] for case in cases], [case["liver"] for case in cases]
    scores: dict[str, float | None] = _dices("lesion", lesions)
    for name in _OVERLAPS:
        detected = sum(case[f"detected{name}"] for case in lesions)
        for share, of in (("precision", "predicted"), ("recall", "true")):
            all_of_them = sum(case[of] for case in lesions)
            scores[f"lesion_{share}{name}"] = detected / all_of_them if all_of_them else 0.0
    of_detected = [figures for case in lesions for figures in case["of_detected"]] or [_WORST]
    scores |= {f"lesion_{key}": mean([figures[key] for figures in of_detected]) for key in _WORST}
    scores |= _dices("liver", livers)
    scores |= {f"liver_{key}": mean([case[key] for case in livers]) for key in _WORST if key != "dice"}
    errors = np.array([case["tumor_burden_error"] for case in cases])
    scores["tumor_burden_rmse"] = float(np.sqrt(np.square(errors).mean()))
    scores["tumor_burden_max"] = float(errors.max())
    return {key: scores[key] for key in DEFINITIONS}


def _voxels(truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    common, true, found = (int(np.count_nonzero(mask)) for mask in (truth & prediction, truth, prediction))
    return {
        "dice": dice(common, true, found) if true or found else 1.0,
        "common_voxels": common,
        "true_voxels": true,
        "predicted_voxels": found,
    }


def _figures(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    voxels = _voxels(truth, prediction)
    overlap, true, found = (voxels[key] for key in ("dice", "true_voxels", "predicted_voxels"))
    if not true or not found:
        return dict(_WORST)
    jaccard = overlap / (2 - overlap)
    return {
        "dice": overlap,
        "jaccard": jaccard,
        "voe": 1 - jaccard,
        "rvd": (true - found) / found,
        **surface_errors(truth, prediction, spacing_mm),
    }


def _dices(name: str, cases: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    common, true, found = (sum(case[f"{key}_voxels"] for case in cases) for key in ("common", "true", "predicted"))
    return {
        f"{name}_dice_per_case": mean([case["dice"] for case in cases]),
        f"{name}_dice_global": dice(common, true, found) if true or found else None,
    }


def _tumor_burden(labels: np.ndarray) -> float:
    return float(np.count_nonzero(labels == TUMOR) / np.count_nonzero(labels >= LIVER))


_OF_FIGURES = {
    "jaccard": "mean Jaccard",
    "voe": "volume overlap error, mean of 1 - Jaccard",
    "rvd": "relative volume difference, mean of (V(T) - V(P)) / V(P)",
    "assd_mm": "average symmetric surface distance, mean",
    "rmsd_mm": "root mean square symmetric surface distance, mean",
    "mssd_mm": "maximum symmetric surface distance, mean",
}
DEFINITIONS = (
    {
        "lesion_dice_per_case": "mean Dice of all lesions together; 1 if there are none in T and P",
        "lesion_dice_global": "Dice over the voxels of all cases",
        "lesion_precision": "detected / predicted lesions; detected: overlap above 0.5 after merging",
        "lesion_recall": "detected / true lesions",
        "lesion_precision_greater_zero": "as lesion_precision, any overlap",
        "lesion_recall_greater_zero": "as lesion_recall, any overlap",
        "lesion_dice": "mean Dice of detected lesions",
    }
    | {f"lesion_{key}": f"{text}, of detected lesions" for key, text in _OF_FIGURES.items()}
    | {
        "liver_dice_per_case": "mean Dice of the liver with its lesions; 0 if none is predicted",
        "liver_dice_global": "Dice over the voxels of all cases",
    }
    | {f"liver_{key}": f"{text}, of the liver" for key, text in _OF_FIGURES.items()}
    | {
        "tumor_burden_rmse": "root mean square of B(T) - B(P); B: lesion voxels / liver voxels with lesions",
        "tumor_burden_max": "largest B(T) - B(P)",
    }
)

LITS = Challenge(
    name="lits",
    title="LiTS",
    source="github.com/PatrickChrist/lits-challenge-scoring; Bilic et al., Medical Image Analysis 84 (2023) 102680",
    labels={LIVER: "liver", TUMOR: "tumor"},
    tumor=TUMOR,
    definitions=DEFINITIONS,
    of_case=of_case,
    over_cases=over_cases,
    needed_in_truth=frozenset({LIVER, TUMOR}),
    remark="9001 stands for distances and volumes without a prediction, and enters the means, as in the challenge.",
)
