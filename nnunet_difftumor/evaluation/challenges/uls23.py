"""ULS23, the Universal Lesion Segmentation Challenge of 2023: one lesion in each volume.

A tenth of its score is consistency: Dice among predictions of the same lesion in three volumes that are cut around
shifted clicks. They belong to the hidden test set; without them 0.9 is the best that can be reached.

Sources: github.com/DIAGNijmegen/ULS23 (evaluation/evaluation.py, evaluation/misc.py, in the version with the symmetric
error); de Grauw et al., arXiv:2406.05231.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_difftumor.evaluation.challenges.axes import axes_of
from nnunet_difftumor.evaluation.challenges.challenge import Challenge
from nnunet_difftumor.evaluation.measures.masks import box_of, dice

_WEIGHTS = {"dice": 0.8, "long_axis_error": 0.05, "short_axis_error": 0.05}


def of_case(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, Any]:
    """Dice, both axes in voxels and their symmetric errors, see `Challenge`; the voxel size does not enter."""
    box = box_of((truth > 0) | (prediction > 0))
    true, found = truth[box] > 0, prediction[box] > 0
    common, true_voxels, found_voxels = (int(np.count_nonzero(mask)) for mask in (true & found, true, found))
    true_axes, axes = axes_of(true), axes_of(found)
    return {
        "dice": dice(common, true_voxels, found_voxels) if true_voxels or found_voxels else 0.0,
        "long_axis_error": _symmetric_error(true_axes.long, axes.long),
        "short_axis_error": _symmetric_error(true_axes.short, axes.short),
        "true_axes_voxels": [true_axes.long, true_axes.short],
        "predicted_axes_voxels": [axes.long, axes.short],
    }


def over_cases(cases: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Means over cases and their weighted sum, see `Challenge`."""
    means = {key: float(np.mean([case[key] for case in cases])) for key in _WEIGHTS}
    score = _WEIGHTS["dice"] * means["dice"]
    score += sum(_WEIGHTS[key] * (1 - min(1.0, means[key])) for key in ("long_axis_error", "short_axis_error"))
    return {"score_without_consistency": score, **means}


def _symmetric_error(true: float, found: float) -> float:
    return abs(found - true) / (true + found) if true + found else 0.0


ULS23 = Challenge(
    name="uls23",
    title="ULS23",
    source="github.com/DIAGNijmegen/ULS23 (evaluation); de Grauw et al., arXiv:2406.05231",
    labels={1: "lesion"},
    tumor=1,
    definitions={
        "score_without_consistency": "0.8 Dice + 0.05 (1 - long_axis_error) + 0.05 (1 - short_axis_error); at most 0.9",
        "dice": "mean Dice; 0 if there is no lesion in T and P",
        "long_axis_error": "mean of |P - T| / (P + T) of the longest axial diameter, in voxels",
        "short_axis_error": "the same of the longest diameter across it",
    },
    of_case=of_case,
    over_cases=over_cases,
    remark="The challenge's score has 0.1 times the consistency more, which needs its own volumes, cut around shifted "
    "clicks. It cannot be computed from one prediction of each lesion.",
)
