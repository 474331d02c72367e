"""Each arm's figures over seeds and patients, and its differences to the arm that it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_difftumor.evaluation.comparing.conclusion import conclusion
from nnunet_difftumor.evaluation.comparing.over_trainings import Difference, over_trainings
from nnunet_difftumor.evaluation.comparing.paired_tests import holm, sign_flip_p
from nnunet_difftumor.evaluation.figures.bootstrap import Bootstrap, Estimate
from nnunet_difftumor.evaluation.measures.case import CaseResult
from nnunet_difftumor.experiments.figures import FIGURES, Figure

# Of the resamples and permutations.
SEED = 0
# With two, a test at 5 % is wrong in up to 13 % of experiments in which nothing differs; with three in 7 %.
FEWEST_SEEDS = 3

# Cases by name, of each seed.
Trainings = Mapping[int, Mapping[str, CaseResult]]


@dataclass(frozen=True)
class Arms:
    """What the trainings of all arms gave, for one tumor label.

    Attributes:
        arms: by name, cases of each seed; the same seeds and cases for all.
        patients: of each case, whose it is, for those whose patient is stated.
        against: by arm, the one that it is compared with, or None.
    """

    arms: Mapping[str, Trainings]
    patients: Mapping[str, str]
    against: Mapping[str, str | None]

    def collect(self) -> dict[str, Any]:
        """JSON-ready.

        Returns:
            "cases", "patients", "seeds"; by arm its figures: value (mean over seeds), low and high (95 %, over
            patients), seeds (value of each), least, greatest, count and unit; and by arm its differences: against,
            figures with first, second, difference (95 %, over seeds and patients), p, p_holm; conclusion.
        """
        names, seeds = self._names(), self._seeds()
        numbers = self._patient_numbers()
        differences = {arm: self._differences(arm, other) for arm, other in self.against.items() if other is not None}
        tests = [figure for of_arm in differences.values() for figure in of_arm.values() if figure["p"] is not None]
        for figure, adjusted in zip(tests, holm([figure["p"] for figure in tests]), strict=True):
            figure["p_holm"] = adjusted
        return {
            "cases": len(names),
            "patients": int(numbers.max()) + 1,
            "seeds": seeds,
            "arms": {arm: self._figures(arm) for arm in self.arms},
            "differences": {
                arm: {
                    "against": self.against[arm],
                    "figures": figures,
                    "conclusion": self._conclusion(arm, figures),
                }
                for arm, figures in differences.items()
            },
        }

    def _figures(self, arm: str) -> dict[str, dict[str, Any]]:
        numbers, seeds = self._patient_numbers(), self._seeds()
        bootstrap = Bootstrap(np.tile(numbers, len(seeds)), seed=SEED)
        found = {}
        for name, figure in FIGURES.items():
            above, below = self._sums(arm, figure)
            if not below.any():
                continue
            estimate = bootstrap.estimate(_ratio(above.ravel(), below, seeds), contributing=_tiled(below, seeds) > 0)
            of_seeds = (above.sum(axis=1) / below.sum()).tolist()
            found[name] = estimate | {
                "seeds": dict(zip(map(str, seeds), of_seeds, strict=True)),
                "least": min(of_seeds),
                "greatest": max(of_seeds),
                "count": int(below.sum()),
                "unit": figure.unit,
            }
        return found

    def _differences(self, arm: str, other: str) -> dict[str, dict[str, Any]]:
        numbers, seeds = self._patient_numbers(), self._seeds()
        found = {}
        for name, figure in FIGURES.items():
            above, below = self._sums(arm, figure)
            if not below.any():
                continue
            first, _ = self._sums(other, figure)
            change, counted = above - first, below > 0
            some_patients = len(np.unique(numbers[counted]))
            whole = self._over_trainings(arm, other, figure) if len(seeds) > 1 and some_patients > 1 else None
            tested = figure.tested and len(seeds) >= FEWEST_SEEDS and whole is not None
            found[name] = {
                "first": float(first.mean(axis=0).sum() / below.sum()),
                "second": float(above.mean(axis=0).sum() / below.sum()),
                "difference": _estimate(float(change.mean(axis=0).sum() / below.sum()), whole),
                "seeds": dict(zip(map(str, seeds), (change.sum(axis=1) / below.sum()).tolist(), strict=True)),
                "p": self._p(change, counted, figure, whole) if tested else None,
                "count": int(below.sum()),
                "unit": figure.unit,
                "patients": some_patients,
            }
        return found

    def _p(self, change: np.ndarray, counted: np.ndarray, figure: Figure, whole: Difference) -> float:
        """The larger one of two tests: over patients alone, exact however few they are, and over seeds as well."""
        flipped = sign_flip_p(self._by_patient(change.mean(axis=0), counted, figure), seed=SEED)
        return max(flipped, whole.p)

    def _over_trainings(self, arm: str, other: str, figure: Figure) -> Difference:
        names = list(self.arms)
        return over_trainings(self._parts(figure), names.index(other), names.index(arm))

    def _parts(self, figure: Figure) -> np.ndarray:
        """What each patient adds to the value of each training, (arms, seeds, patients): their mean is the arm's value.

        A share of tumors is a ratio of sums: a patient with many tumors adds by how far it is from the whole.
        """
        sums = [self._sums(arm, figure) for arm in self.arms]
        below = sums[0][1]
        counted = below > 0
        numbers = np.unique(self._patient_numbers()[counted], return_inverse=True)[1]
        patients = int(numbers.max()) + 1
        weight = np.bincount(numbers, below[counted], minlength=patients)
        parts = []
        for above, _ in sums:
            of_patients = np.stack([np.bincount(numbers, row[counted], minlength=patients) for row in above])
            whole = above.mean(axis=0).sum() / below.sum()
            parts.append(whole + (of_patients - whole * weight) * patients / below.sum())
        return np.stack(parts)

    def _by_patient(self, values: np.ndarray, counted: np.ndarray, figure: Figure) -> np.ndarray:
        """One value for each patient with cases that count."""
        numbers = self._patient_numbers()[counted]
        counts = np.bincount(numbers)
        sums = np.bincount(numbers, values[counted])[counts > 0]
        return sums / counts[counts > 0] if figure.averaged else sums

    def _conclusion(self, arm: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
        other, seeds = self.against[arm], self._seeds()
        if len(seeds) < FEWEST_SEEDS:
            return (
                f"Nothing may be concluded about {arm} against {other}: with {len(seeds)} seed"
                f"{'s' * (len(seeds) != 1)} it is not known how much trainings of one arm differ; take at least "
                f"{FEWEST_SEEDS}."
            )
        holds_for = (
            f"patients like these {{patients}}, over {len(seeds)} seeds of the training; other hospitals may differ"
        )
        return conclusion(figures, str(other), arm, holds_for=holds_for)

    def _sums(self, arm: str, figure: Figure) -> tuple[np.ndarray, np.ndarray]:
        """Above (seeds, cases) and below (cases)."""
        pairs = [figure.sums([of_seed[name] for name in self._names()]) for of_seed in self.arms[arm].values()]
        return np.stack([above for above, _ in pairs]), pairs[0][1]

    def _names(self) -> list[str]:
        return sorted(next(iter(next(iter(self.arms.values())).values())))

    def _seeds(self) -> list[int]:
        return list(next(iter(self.arms.values())))

    def _patient_numbers(self) -> np.ndarray:
        whose = [
            f"patient {self.patients[name]}" if name in self.patients else f"case {name}" for name in self._names()
        ]
        return np.unique(whose, return_inverse=True)[1]


def _estimate(value: float, whole: Difference | None) -> Estimate:
    low, high = (None, None) if whole is None else whole.interval
    return {"value": value, "low": low, "high": high}


def _ratio(above: np.ndarray, below: np.ndarray, seeds: Sequence[int]):
    """The mean over trainings, by weights of the cases of all of them in turn."""
    whole = _tiled(below, seeds)
    return lambda weights: (weights @ above) / (weights @ whole)


def _tiled(below: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    return np.tile(below, len(seeds))
