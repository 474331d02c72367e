"""Bootstrap over patients: 2,000 resamples, percentile intervals of 95 % (Efron and Tibshirani, 1993, chapter 13)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

RESAMPLES = 2000
INTERVAL_PERCENT = (2.5, 97.5)
# Resamples that are worked on at a time, so that memory does not grow with thousands of cases.
_AT_A_TIME = 100

Estimate = dict[str, Any]


class Bootstrap:
    """The same resamples for all figures of some cases.

    Args:
        patients: of each case, the number of its patient, 0 to the number of patients - 1.
        seed: the same one draws the same resamples.
    """

    def __init__(self, patients: np.ndarray, *, seed: int) -> None:
        self._patients = patients
        n = int(patients.max(initial=-1)) + 1
        rng = np.random.default_rng(seed)
        # How often each patient is drawn.
        self._draws = (
            rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64) if n else np.zeros((0, 0))
        )

    def estimate(self, figure: Callable[[np.ndarray], np.ndarray], *, contributing: np.ndarray) -> Estimate:
        """A figure with its interval.

        Args:
            figure: takes weights of the cases (resamples, cases), gives a value for each resample; NaN where there is
                none.
            contributing: boolean, whether a case has a part in the figure.

        Returns:
            value; low and high, None where fewer than two patients contribute.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(figure(np.ones((1, len(self._patients))))[0])
            if not np.isfinite(value):
                return {"value": None, "low": None, "high": None}
            if len(np.unique(self._patients[contributing])) < 2:
                return {"value": value, "low": None, "high": None}
            resampled = np.concatenate([figure(weights) for weights in self._weights()])
        # A resample without any case that contributes is left out.
        low, high = np.nanpercentile(resampled, INTERVAL_PERCENT)
        return {"value": value, "low": float(low), "high": float(high)}

    def _weights(self) -> Iterator[np.ndarray]:
        for start in range(0, RESAMPLES, _AT_A_TIME):
            yield self._draws[start : start + _AT_A_TIME, self._patients]


class BootstrapOfTrainings(Bootstrap):
    """Over trainings and patients together: seeds are drawn, and for all of them the same patients.

    The cases are those of every training in turn. Trainings on the same cases share patients, so that both are drawn
    once each in a resample (two-way bootstrap: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007).
    S trainings that are drawn from S vary too little by (S - 1) / S: deviations from their mean are stretched by the
    square root of S / (S - 1) (Rao and Wu, Journal of the American Statistical Association 1988).

    Figures must be sums over cases, divided by sums that are the same for every training.

    Args:
        patients: of each case, as for `Bootstrap`.
        trainings: how many there are, on the same cases.
        seed: the same one draws the same resamples.
    """

    def __init__(self, patients: np.ndarray, *, trainings: int, seed: int) -> None:
        super().__init__(np.tile(patients, trainings), seed=seed)
        self._trainings = trainings
        # Other random numbers than those of the patients.
        rng = np.random.default_rng((seed, trainings))
        drawn = rng.multinomial(trainings, np.full(trainings, 1 / trainings), size=RESAMPLES)
        stretch = np.sqrt(trainings / (trainings - 1)) if trainings > 1 else 1.0
        self._drawn = 1.0 + stretch * (drawn - 1.0)

    def estimate(self, figure: Callable[[np.ndarray], np.ndarray], *, contributing: np.ndarray) -> Estimate:
        """As `Bootstrap.estimate`; low and high are None with a single training, too.

        Args:
            figure: takes weights (resamples, trainings * cases).
            contributing: of the cases of all trainings in turn.
        """
        found = super().estimate(figure, contributing=contributing)
        return found if self._trainings > 1 else found | {"low": None, "high": None}

    def _weights(self) -> Iterator[np.ndarray]:
        cases = len(self._patients) // self._trainings
        for number, weights in enumerate(super()._weights()):
            drawn = self._drawn[number * _AT_A_TIME : (number + 1) * _AT_A_TIME]
            yield weights * np.repeat(drawn, cases, axis=1)
