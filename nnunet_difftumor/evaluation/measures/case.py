"""Everything that is measured of one tumor label in one scan."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.evaluation.measures.candidates import Candidates, candidates_of
from nnunet_difftumor.evaluation.measures.masks import box_of, dice, mask_figures
from nnunet_difftumor.evaluation.measures.matching import Components, MatchingRule, match
from nnunet_difftumor.generative.stages import EARLY_BELOW_MM
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

# The bands that tumors are drawn from, and what lies outside them: specks below, nothing above "large".
BANDS_MM = {"under_5mm": (0.0, SIZE_BANDS_MM["tiny"][0])} | dict(SIZE_BANDS_MM)
BANDS_MM["large"] = (SIZE_BANDS_MM["large"][0], math.inf)


@dataclass(frozen=True)
class Lesion:
    """One connected component (26 neighbours) of the true mask, of the predicted one, or of probabilities.

    Attributes:
        diameter_mm: of the ball with the component's volume.
        matched: whether it has a partner in the other mask, by the matching rule.
        dsc: of a true lesion with all its partners together; 0 without any; None of a predicted one.
        confidence: of a true lesion, the highest of its candidates, None without any; of a candidate, its own.
    """

    diameter_mm: float
    matched: bool
    dsc: float | None = None
    confidence: float | None = None

    @property
    def band(self) -> str:
        return next(name for name, (low, high) in BANDS_MM.items() if low <= self.diameter_mm < high)

    @property
    def is_early(self) -> bool:
        return self.diameter_mm < EARLY_BELOW_MM


@dataclass(frozen=True)
class CaseResult:
    """One scan.

    Attributes:
        dsc, nsd, hd95_mm, truth_ml, predicted_ml: as in `MaskFigures`.
        tumors: components of the true mask; `matched` means detected.
        findings: components of the predicted mask; without a match they are false positives.
        false_candidates: components of the probabilities above the threshold that match no tumor; None without
            probabilities.
        score: highest probability of the tumor in the scan; None without probabilities.
    """

    dsc: float | None
    nsd: float | None
    hd95_mm: float | None
    truth_ml: float
    predicted_ml: float
    tumors: tuple[Lesion, ...]
    findings: tuple[Lesion, ...]
    false_candidates: tuple[Lesion, ...] | None = None
    score: float | None = None

    @property
    def false_positives(self) -> tuple[Lesion, ...]:
        return tuple(finding for finding in self.findings if not finding.matched)


def measure(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    nsd_tolerance_mm: float,
    rule: MatchingRule | None = None,
    probability: np.ndarray | None = None,
) -> CaseResult:
    """Compares two masks of one scan.

    Args:
        truth, prediction: boolean (z, y, x).
        spacing_mm: voxel size (z, y, x).
        nsd_tolerance_mm: distance up to which two surfaces count as the same.
        rule: when two lesions match; None: any overlap.
        probability: of the tumor, float (z, y, x), 0 to 1; None: there is none.
    """
    rule = rule or MatchingRule()
    candidates = Candidates.none() if probability is None else candidates_of(probability)
    inside = box_of(truth | prediction if probability is None else truth | prediction | (candidates.labels > 0))
    truth, prediction = truth[inside], prediction[inside]
    figures = mask_figures(truth, prediction, spacing_mm=spacing_mm, nsd_tolerance_mm=nsd_tolerance_mm)
    true, found = Components.of(truth, spacing_mm), Components.of(prediction, spacing_mm)
    overlap, matched = match(true, found, rule)
    confidences, false_candidates, score = [None] * len(true.voxels), None, None
    if probability is not None:
        confidences, false_candidates = _by_confidence(true, candidates.within(inside), rule, spacing_mm)
        score = round(float(probability.max(initial=0.0)), 6)
    tumors = tuple(
        Lesion(float(true.diameters_mm[i]), bool(matched[i].any()), _lesion_dsc(i, true, found, overlap, matched), c)
        for i, c in enumerate(confidences)
    )
    findings = tuple(
        Lesion(float(diameter_mm), bool(matched[:, j].any())) for j, diameter_mm in enumerate(found.diameters_mm)
    )
    return CaseResult(
        figures.dsc,
        figures.nsd,
        figures.hd95_mm,
        figures.truth_ml,
        figures.predicted_ml,
        tumors,
        findings,
        false_candidates,
        score,
    )


def _lesion_dsc(i: int, true: Components, found: Components, overlap: np.ndarray, matched: np.ndarray) -> float:
    partners = matched[i]
    return dice(overlap[i, partners].sum(), true.voxels[i], found.voxels[partners].sum())


def _by_confidence(
    true: Components, candidates: Candidates, rule: MatchingRule, spacing_mm: Sequence[float]
) -> tuple[list[float | None], tuple[Lesion, ...]]:
    """Of each true lesion the confidence that it is found with; and the candidates that match none."""
    found = candidates.components(spacing_mm)
    _, matched = match(true, found, rule)
    best = [max(candidates.confidences[row], default=None) for row in matched]
    false = tuple(
        Lesion(float(found.diameters_mm[j]), False, confidence=confidence)
        for j, confidence in enumerate(candidates.confidences.tolist())
        if not matched[:, j].any()
    )
    return [None if one is None else float(one) for one in best], false
