"""KiTS23, the Kidney Tumor Segmentation Challenge of 2023.

Three classes, each within the one before: kidney with all that grows in it, masses, tumors. A class that is neither in
the truth nor predicted scores 1, one that is only in one of them 0.

Sources: github.com/neheller/kits23 (kits23/evaluation/metrics.py, kits23/evaluation/ranking.py,
kits23/configuration/labels.py). Metrics and tolerances are those of KiTS21 (Heller et al., arXiv:2307.01984).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_difftumor.evaluation.challenges.challenge import Challenge, mean
from nnunet_difftumor.evaluation.measures.masks import box_of, mask_figures


@dataclass(frozen=True)
class HierarchicalClass:
    """Label values that are evaluated together, and the tolerance of their surface Dice."""

    values: tuple[int, ...]
    tolerance_mm: float


CLASSES = {
    "kidney_and_mass": HierarchicalClass((1, 2, 3), 1.0330772532390826),
    "mass": HierarchicalClass((2, 3), 1.1328796488598762),
    "tumor": HierarchicalClass((2,), 1.1498198361434828),
}


def of_case(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, Any]:
    """Dice and surface Dice of each class, see `Challenge`."""
    box = box_of((truth > 0) | (prediction > 0))
    found = {}
    for name, one in CLASSES.items():
        true, predicted = np.isin(truth[box], one.values), np.isin(prediction[box], one.values)
        figures = mask_figures(true, predicted, spacing_mm=spacing_mm, nsd_tolerance_mm=one.tolerance_mm)
        found[name] = {
            "dice": 1.0 if figures.dsc is None else figures.dsc,
            "surface_dice": 1.0 if figures.nsd is None else figures.nsd,
        }
    return found


def over_cases(cases: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Means over cases, and over the classes, see `Challenge`."""
    scores: dict[str, float | None] = {}
    for key in ("dice", "surface_dice"):
        of_classes = {f"{name}_{key}": mean([case[name][key] for case in cases]) for name in CLASSES}
        scores |= of_classes | {f"mean_{key}": mean(list(of_classes.values()))}
    return scores


_WORDS = {"kidney_and_mass": "kidneys, tumors and cysts", "mass": "tumors and cysts", "tumor": "tumors"}

KITS23 = Challenge(
    name="kits23",
    title="KiTS23",
    source="github.com/neheller/kits23 (kits23/evaluation)",
    labels={1: "kidney", 2: "tumor", 3: "cyst"},
    tumor=2,
    definitions={f"{name}_dice": f"mean Dice of {words}" for name, words in _WORDS.items()}
    | {"mean_dice": "mean over the three classes"}
    | {
        f"{name}_surface_dice": f"mean surface Dice of {words} at {CLASSES[name].tolerance_mm:.4f} mm"
        for name, words in _WORDS.items()
    }
    | {"mean_surface_dice": "mean over the three classes"},
    of_case=of_case,
    over_cases=over_cases,
    remark="A class in neither truth nor prediction scores 1, one in only one of them 0. Teams are ranked by "
    "the means over the classes; the Dice of tumors breaks ties.",
)
