"""Compares methods by the results of `evaluate` on the same cases, pair by pair."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nnunet_difftumor import __version__
from nnunet_difftumor.evaluation.comparing.conclusion import conclusion
from nnunet_difftumor.evaluation.comparing.paired_tests import (
    PERMUTATIONS,
    holm,
    mcnemar_p,
    rank_biserial,
    sign_flip_p,
    wilcoxon_p,
)
from nnunet_difftumor.evaluation.comparing.results_files import Method, load_methods
from nnunet_difftumor.evaluation.figures.bootstrap import RESAMPLES, Bootstrap
from nnunet_difftumor.evaluation.figures.curves import Ranked, average_precision, sensitivity_at
from nnunet_difftumor.evaluation.figures.summary import SIZES
from nnunet_difftumor.evaluation.measures.case import CaseResult, Lesion
from nnunet_difftumor.files import write_json

SCHEMA_VERSION = 1
# Sensitivities are compared where both make so many false positives.
EQUAL_FALSE_POSITIVES_PER_SCAN = 1.0


def compare(
    results: Sequence[str | os.PathLike],
    *,
    names: Sequence[str] = (),
    seed: int = 0,
    output: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Compares every method with the first one. docs/statistics.md defines the tests.

    Args:
        results: JSON files of `evaluate`, two or more, of the same cases, truth and settings.
        names: of the methods; none: the names of the files, or of their folders where files have the same name.
        seed: of the bootstrap and the permutations.
        output: JSON file for the result; None: nothing is written.

    Returns:
        A dict for strict JSON: per tumor name and method the paired figures. Each has both means, the difference with
        its 95 % interval, p, p_holm over all tests of the tumor, a permutation test as a check, and an effect size.

    Raises:
        InputError: a file is no result of `evaluate`, or the results are not of the same cases and settings.
    """
    methods = load_methods(results, names)
    tumors = {}
    for tumor in methods[0].cases:
        pairs = {other.name: _compared(methods[0], other, tumor, seed) for other in methods[1:]}
        tests = [figure for figures in pairs.values() for figure in figures.values() if figure["p"] is not None]
        for figure, adjusted in zip(tests, holm([figure["p"] for figure in tests]), strict=True):
            figure["p_holm"] = adjusted
        tumors[tumor] = {
            name: {"figures": figures, "conclusion": conclusion(figures, methods[0].name, name)}
            for name, figures in pairs.items()
        }
    compared = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "reference": methods[0].name,
        "results": {method.name: str(method.path.resolve()) for method in methods},
        "settings": {
            "bootstrap": {"resamples": RESAMPLES, "seed": seed, "interval": "95 % percentile, over patients"},
            "permutations": PERMUTATIONS,
            "equal_false_positives_per_scan": EQUAL_FALSE_POSITIVES_PER_SCAN,
            "of_both": methods[0].settings,
        },
        "tumors": tumors,
    }
    if output is not None:
        write_json(output, compared)
    return compared


def _compared(first: Method, second: Method, tumor: str, seed: int) -> dict[str, dict[str, Any]]:
    names = list(first.cases[tumor])
    pair = _Pair(
        [first.cases[tumor][name] for name in names],
        [second.cases[tumor][name] for name in names],
        np.unique([first.patients.get(name, f"case {name}") for name in names], return_inverse=True)[1],
        seed,
    )
    figures = {
        "dsc": pair.of_cases(lambda case: case.dsc or 0.0, only_ill=True),
        "nsd": pair.of_cases(lambda case: case.nsd or 0.0, only_ill=True),
        "detected": pair.of_tumors(SIZES["all"]),
        "detected_early": pair.of_tumors(SIZES["early"]),
        "false_positives_per_scan": pair.of_cases(lambda case: len(case.false_positives), only_ill=False),
        "patient_sensitivity": pair.of_patients(ill=True),
        "patient_specificity": pair.of_patients(ill=False),
    }
    if all(case.score is not None for case in (*pair.first, *pair.second)):
        figures |= {
            "detected_at_equal_false_positives": pair.of_curves(SIZES["all"]),
            "detected_early_at_equal_false_positives": pair.of_curves(SIZES["early"]),
            "average_precision": pair.of_curves(SIZES["all"], average_precision),
        }
    return {name: figure for name, figure in figures.items() if figure is not None}


class _Pair:
    """The same cases by two methods."""

    def __init__(
        self, first: Sequence[CaseResult], second: Sequence[CaseResult], patients: np.ndarray, seed: int
    ) -> None:
        self.first, self.second, self.patients, self.seed = first, second, patients, seed
        self.ill = np.array([bool(case.tumors) for case in first])
        self.bootstrap = Bootstrap(patients, seed=seed)

    def of_cases(self, value: Callable[[CaseResult], float], *, only_ill: bool) -> dict[str, Any] | None:
        """Of a value per case: tests over patients, each with the mean of its cases."""
        where = self.ill if only_ill else np.ones(len(self.first), bool)
        if not where.any():
            return None
        values = [np.array([value(case) for case in cases], np.float64) for cases in (self.first, self.second)]
        figure = self._ratios([each * where for each in values], where.astype(np.float64), unit="cases")
        differences = self._by_patient(values[1] - values[0], where)
        return figure | {
            "test": "Wilcoxon signed-rank over patients",
            "p": wilcoxon_p(differences),
            "p_permutation": sign_flip_p(differences, seed=self.seed),
            "effect": {"rank_biserial": rank_biserial(differences)},
        }

    def of_tumors(self, fits: Callable[[Lesion], bool]) -> dict[str, Any] | None:
        """Of tumors detected: McNemar over tumors; the check flips whole patients, whose tumors share their fate."""
        found = [
            [[tumor.matched for tumor in case.tumors if fits(tumor)] for case in cases]
            for cases in (self.first, self.second)
        ]
        count = np.array([len(some) for some in found[0]], np.float64)
        if not count.any():
            return None
        sums = [np.array([sum(some) for some in each], np.float64) for each in found]
        pairs = [pair for cases in zip(*found, strict=True) for pair in zip(*cases, strict=True)]
        only_first, only_second = (sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))
        differences = self._by_patient(sums[1] - sums[0], count > 0, mean=False)
        return self._ratios(sums, count, unit="tumors") | {
            "test": "exact McNemar over tumors",
            "p": mcnemar_p(only_first, only_second),
            "p_permutation": sign_flip_p(differences, seed=self.seed),
            "effect": {"only_first": only_first, "only_second": only_second},
        }

    def of_patients(self, *, ill: bool) -> dict[str, Any] | None:
        """Whether anything is predicted where there is a tumor, or nothing where there is none."""
        where = self.ill if ill else ~self.ill
        if not where.any():
            return None
        right = [
            np.array([bool(case.findings) == ill for case in cases]) & where for cases in (self.first, self.second)
        ]
        only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        differences = self._by_patient(right[1].astype(float) - right[0], where, mean=False)
        sums = [each.astype(np.float64) for each in right]
        return self._ratios(sums, where.astype(np.float64), unit="cases") | {
            "test": "exact McNemar over cases",
            "p": mcnemar_p(only_first, only_second),
            "p_permutation": sign_flip_p(differences, seed=self.seed),
            "effect": {"only_first": only_first, "only_second": only_second},
        }

    def of_curves(
        self,
        fits: Callable[[Lesion], bool],
        figure: Callable[[Ranked, np.ndarray], np.ndarray] = lambda ranked, weights: sensitivity_at(
            ranked, EQUAL_FALSE_POSITIVES_PER_SCAN, weights
        ),
    ) -> dict[str, Any] | None:
        """Of ranked candidates: an interval and no test."""
        ranked = [Ranked.of_cases(cases, fits) for cases in (self.first, self.second)]
        with_tumors = ranked[0].lesions > 0
        if not with_tumors.any():
            return None
        return self._difference(
            [partial(figure, one) for one in ranked],
            contributing=with_tumors,
            count=int(ranked[0].lesions.sum()),
            unit="tumors",
        ) | {"test": None, "p": None, "p_permutation": None, "effect": {}}

    def _ratios(self, sums: Sequence[np.ndarray], below: np.ndarray, *, unit: str) -> dict[str, Any]:
        figures = [lambda weights, above=above: (weights @ above) / (weights @ below) for above in sums]
        return self._difference(figures, contributing=below > 0, count=int(below.sum()), unit=unit)

    def _difference(
        self,
        figures: Sequence[Callable[[np.ndarray], np.ndarray]],
        *,
        contributing: np.ndarray,
        count: int,
        unit: str,
    ) -> dict[str, Any]:
        """Both values and the second minus the first, on the same resamples."""
        first, second = figures
        difference = self.bootstrap.estimate(
            lambda weights: second(weights) - first(weights), contributing=contributing
        )
        once = np.ones((1, len(self.first)))
        return {
            "first": float(first(once)[0]),
            "second": float(second(once)[0]),
            "difference": difference,
            "count": count,
            "unit": unit,
            "patients": len(np.unique(self.patients[contributing])),
        }

    def _by_patient(self, values: np.ndarray, where: np.ndarray, *, mean: bool = True) -> np.ndarray:
        """Mean, or sum, over the cases of each patient that count."""
        sums = np.bincount(self.patients[where], values[where], minlength=self.patients.max() + 1)
        counts = np.bincount(self.patients[where], minlength=len(sums))
        return sums[counts > 0] / (counts[counts > 0] if mean else 1)
