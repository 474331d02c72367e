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
