"""The figures of one tumor label over some cases. Each is defined in docs/statistics.md."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nnunet_difftumor.evaluation.figures.bootstrap import Bootstrap, Estimate
from nnunet_difftumor.evaluation.figures.curves import (
    FALSE_POSITIVES_PER_SCAN,
    Ranked,
    area_under_roc,
    average_precision,
    froc_score,
    sensitivity_at,
)
from nnunet_difftumor.evaluation.measures.case import BANDS_MM, CaseResult, Lesion

SIZES: dict[str, Callable[[Lesion], bool]] = {
    "all": lambda lesion: True,
    "early": lambda lesion: lesion.is_early,
    **{band: (lambda lesion, band=band: lesion.band == band) for band in BANDS_MM},
}


def summarize(cases: Sequence[CaseResult], *, patients: Sequence[str] | None = None, seed: int = 0) -> dict[str, Any]:
    """Sums up the cases of one tumor label.

    A case is healthy if it has no true tumor. Means of DSC, NSD and volume error are over the cases with a tumor only:
    on a healthy case DSC is 0 for a single voxel as for a thousand; false positives and specificity measure those.

    Args:
        cases: at least one.
        patients: of each case, whose scan it is; None: every case is of another one.
        seed: of the 2,000 resamples, so that the same cases give the same interval.

    Returns:
        By name an estimate: value, low, high (95 % percentile bootstrap over patients) and count, the cases, tumors or
        findings that it is a share or mean of. value is None where there is nothing to measure, low and high where
        fewer than two patients contribute. tumor_sensitivity, lesion_dsc and false_positives_per_scan have one by size:
        "all", "early" (< 20 mm) or a band. With probabilities in every case, also patient_auc, average_precision, froc
        and, by size, froc_sensitivity at the false positives per scan.
    """
    numbers = np.unique(list(patients), return_inverse=True)[1] if patients is not None else np.arange(len(cases))
    summary = _Summary(cases, Bootstrap(numbers, seed=seed))
    return summary.of_masks() | summary.of_lesions() | summary.of_patients() | summary.of_probabilities()


class _Summary:
    def __init__(self, cases: Sequence[CaseResult], bootstrap: Bootstrap) -> None:
        self.cases, self.bootstrap = cases, bootstrap
        self.ill = np.array([bool(case.tumors) for case in cases])
        self.everywhere = np.ones(len(cases), bool)

    def of_masks(self) -> dict[str, Any]:
        with_hd95 = np.array([case.hd95_mm is not None for case in self.cases])
        errors = [abs(case.predicted_ml - case.truth_ml) / case.truth_ml if case.tumors else 0.0 for case in self.cases]
        biases = [case.predicted_ml - case.truth_ml for case in self.cases]
        return {
            "dsc": self._mean([case.dsc or 0.0 for case in self.cases], self.ill),
            "nsd": self._mean([case.nsd or 0.0 for case in self.cases], self.ill),
            "hd95_mm": self._mean([case.hd95_mm or 0.0 for case in self.cases], with_hd95),
            "volume_error": self._mean(errors, self.ill),
            "volume_bias_ml": self._mean(biases, self.everywhere),
        }

    def of_lesions(self) -> dict[str, Any]:
        found = _count([[t for t in case.tumors if t.matched] for case in self.cases])
        tumors = _count([case.tumors for case in self.cases])
        findings = _count([case.findings for case in self.cases])
        right = findings - _count([case.false_positives for case in self.cases])
        summary: dict[str, Any] = {
            "lesion_precision": self._ratio(right, findings),
            "lesion_f1": self._f1(found, tumors, right, findings),
        }
        for size, fits in SIZES.items():
            some = [[tumor for tumor in case.tumors if fits(tumor)] for case in self.cases]
            false = [[lesion for lesion in case.false_positives if fits(lesion)] for case in self.cases]
            dsc = np.array([sum(tumor.dsc or 0.0 for tumor in tumors) for tumors in some])
            detected = _count([[t for t in tumors if t.matched] for tumors in some])
            for name, estimate in (
                ("tumor_sensitivity", self._ratio(detected, _count(some))),
                ("lesion_dsc", self._ratio(dsc, _count(some))),
                ("false_positives_per_scan", self._ratio(_count(false), np.ones(len(self.cases)))),
            ):
                summary.setdefault(name, {})[size] = estimate
        return summary

    def of_patients(self) -> dict[str, Any]:
        positive = np.array([bool(case.findings) for case in self.cases])
        return {
            "patient_sensitivity": self._ratio(self.ill & positive, self.ill),
            "patient_specificity": self._ratio(~self.ill & ~positive, ~self.ill),
        }

    def of_probabilities(self) -> dict[str, Any]:
        if any(case.score is None for case in self.cases):
            return {}
        scores = np.array([case.score for case in self.cases])
        auc = self.bootstrap.estimate(
            lambda weights: area_under_roc(scores, self.ill, weights), contributing=self.everywhere
        )
        summary: dict[str, Any] = {"patient_auc": auc | {"count": len(self.cases)}, "froc_sensitivity": {}}
        for size, fits in (("all", SIZES["all"]), ("early", SIZES["early"])):
            ranked = Ranked.of_cases(self.cases, fits)
            with_tumors, tumors = ranked.lesions > 0, int(ranked.lesions.sum())

            def estimate(
                figure: Callable[[np.ndarray], np.ndarray], with_tumors=with_tumors, tumors=tumors
            ) -> Estimate:
                return self.bootstrap.estimate(figure, contributing=with_tumors) | {"count": tumors}

            summary["froc_sensitivity"][size] = {
                f"{rate:g}": estimate(lambda weights, r=rate, ranked=ranked: sensitivity_at(ranked, r, weights))
                for rate in FALSE_POSITIVES_PER_SCAN
            }
            if size == "all":
                summary["froc"] = estimate(lambda weights, ranked=ranked: froc_score(ranked, weights))
                summary["average_precision"] = estimate(lambda w, ranked=ranked: average_precision(ranked, w))
        return summary

    def _mean(self, values: Iterable[float], where: np.ndarray) -> Estimate:
        return self._ratio(np.where(where, np.fromiter(values, np.float64), 0.0), where)

    def _ratio(self, numerator: np.ndarray, denominator: np.ndarray) -> Estimate:
        above, below = numerator.astype(np.float64), denominator.astype(np.float64)
        estimate = self.bootstrap.estimate(
            lambda weights: (weights @ above) / (weights @ below), contributing=below > 0
        )
        return estimate | {"count": int(below.sum())}

    def _f1(self, found: np.ndarray, tumors: np.ndarray, right: np.ndarray, findings: np.ndarray) -> Estimate:
        """Harmonic mean of sensitivity and precision; 0 if nothing is predicted."""

        def figure(weights: np.ndarray) -> np.ndarray:
            d, t, r, f = (weights @ column.astype(np.float64) for column in (found, tumors, right, findings))
            f1 = 2 * d * r / (d * f + r * t)
            return np.where((d == 0) & (t > 0), 0.0, f1)

        estimate = self.bootstrap.estimate(figure, contributing=tumors > 0)
        return estimate | {"count": int(tumors.sum())}


def _count(lesions: Iterable[Sequence[Lesion]]) -> np.ndarray:
    return np.array([len(some) for some in lesions])
