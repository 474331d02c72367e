"""Figures of ranked findings, for cases with weights: FROC, average precision, area under the ROC curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.evaluation.measures.case import CaseResult, Lesion

# As LUNA16 reports them (Setio et al., Medical Image Analysis 2017).
FALSE_POSITIVES_PER_SCAN = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Ranked:
    """True lesions and false candidates of some cases, by falling confidence.

    Attributes:
        case: of each entry, the index of its case.
        is_lesion: of each entry, whether it is a lesion that was found; else it is a false candidate.
        last: indices of the entries after which the confidence falls: only there a threshold can lie.
        lesions: of each case, the number of its lesions, found or not.
    """

    case: np.ndarray
    is_lesion: np.ndarray
    last: np.ndarray
    lesions: np.ndarray

    @classmethod
    def of(cls, found: Sequence[Sequence[float]], false: Sequence[Sequence[float]], lesions: Sequence[int]) -> "Ranked":
        """Ranks the entries of all cases.

        Args:
            found: of each case, the confidences of the lesions that have one.
            false: of each case, the confidences of its false candidates.
            lesions: of each case, the number of its lesions.
        """
        parts = [(i, True, c) for i, some in enumerate(found) for c in some]
        parts += [(i, False, c) for i, some in enumerate(false) for c in some]
        confidence = np.array([part[2] for part in parts], np.float64)
        order = np.argsort(-confidence, kind="stable")
        falling = confidence[order]
        last = np.flatnonzero(np.append(falling[1:] < falling[:-1], True)) if len(order) else np.zeros(0, int)
        case = np.array([part[0] for part in parts], int)[order]
        return cls(case, np.array([part[1] for part in parts], bool)[order], last, np.asarray(lesions, np.float64))

    @classmethod
    def of_cases(cls, cases: Sequence[CaseResult], fits: Callable[[Lesion], bool]) -> "Ranked":
        """Ranks what probabilities give of some cases, which all have them.

        Args:
            cases: with `score`.
            fits: which true lesions count; false candidates all do.
        """
        tumors = [[tumor for tumor in case.tumors if fits(tumor)] for case in cases]
        return cls.of(
            [[tumor.confidence for tumor in some if tumor.confidence is not None] for some in tumors],
            [[lesion.confidence or 0.0 for lesion in case.false_candidates or ()] for case in cases],
            [len(some) for some in tumors],
        )

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lesions found and false candidates at each threshold, strictest first: (resamples, thresholds) each."""
        each = weights[:, self.case]
        found = np.cumsum(each * self.is_lesion, axis=1)[:, self.last]
        return found, np.cumsum(each * ~self.is_lesion, axis=1)[:, self.last]


def sensitivity_at(ranked: Ranked, false_positives: float, weights: np.ndarray) -> np.ndarray:
    """Share of lesions found at the lowest threshold with at most so many false candidates per scan.

    Args:
        ranked: entries of the cases.
        false_positives: per scan.
        weights: of the cases, (resamples, cases).

    Returns:
        (resamples,), 0 to 1; NaN without lesions.
    """
    found, false = ranked.counts(weights)
    allowed = false <= false_positives * weights.sum(axis=1, keepdims=True) * (1 + 1e-12)
    return np.max(found * allowed, axis=1, initial=0.0) / (weights @ ranked.lesions)


def froc_score(ranked: Ranked, weights: np.ndarray) -> np.ndarray:
    """Mean of the sensitivities at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false candidates per scan (LUNA16)."""
    return np.mean([sensitivity_at(ranked, rate, weights) for rate in FALSE_POSITIVES_PER_SCAN], axis=0)


def average_precision(ranked: Ranked, weights: np.ndarray) -> np.ndarray:
    """Sum over thresholds of precision times the gain in recall, as scikit-learn defines it; lesions that no candidate
    matches are never recalled.
    """
    found, false = ranked.counts(weights)
    total = weights @ ranked.lesions
    precision = np.divide(found, found + false, out=np.zeros_like(found), where=found + false > 0)
    gains = np.diff(found, axis=1, prepend=0.0)
    return (precision * gains).sum(axis=1) / total


def area_under_roc(scores: np.ndarray, ill: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Chance that a case with tumors has a higher score than one without; equal scores count half (Mann and Whitney).

    Args:
        scores: of the cases.
        ill: boolean, whether a case has tumors.
        weights: of the cases, (resamples, cases).

    Returns:
        (resamples,), 0 to 1; NaN unless there are both.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) > 0))
    positive = np.add.reduceat(weights[:, order] * ill[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~ill[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    pairs = (positive * (below + negative / 2)).sum(axis=1)
    return pairs / (positive.sum(axis=1) * negative.sum(axis=1))
