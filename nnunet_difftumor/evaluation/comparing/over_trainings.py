"""A difference over trainings and patients, both taken as a sample of many. Defined in docs/statistics.md."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

INTERVAL = 0.95


@dataclass(frozen=True)
class Difference:
    """Of the means of two arms.

    Attributes:
        value: the difference.
        error: its standard error over other seeds and other patients.
        freedom: degrees of freedom of the error.
    """

    value: float
    error: float
    freedom: float

    @property
    def p(self) -> float:
        """Two-sided, that there is none; 1 if the two are equal throughout."""
        if not self.error:
            return float(not self.value)
        return float(2 * student.sf(abs(self.value) / self.error, self.freedom))

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %; it excludes 0 where p is below 5 %."""
        half = float(student.ppf((1 + INTERVAL) / 2, self.freedom)) * self.error
        return self.value - half, self.value + half


def over_trainings(values: np.ndarray, first: int, second: int) -> Difference:
    """How much more the second arm has than the first, for other seeds and other patients than these.

    Seeds and patients are crossed as readers and cases are in reader studies: an analysis of variance takes the
    variance of the difference apart (Dorfman, Berbaum and Metz, Investigative Radiology 1992), with the degrees of
    freedom of Hillis (Statistics in Medicine 2007), here at most those of the patients. How much seeds differ is taken
    to be alike in all arms: with three seeds, two arms alone would hardly tell.

    Args:
        values: (arms, trainings, patients), at least two of each; training s of every arm has the same seed.
        first, second: indices of the arms.
    """
    arms, trainings, patients = values.shape
    difference = values[second] - values[first]
    of_patients = float((arms - 1) * (patients - 1))
    if not difference.any():
        return Difference(0.0, 0.0, of_patients)
    # What is left of the values once the means of arms, and of trainings and patients over all arms, are taken away.
    values = values - values.mean(axis=0, keepdims=True)
    values = values - values.mean(axis=(1, 2), keepdims=True)
    of_training, of_patient = values.mean(axis=2, keepdims=True), values.mean(axis=1, keepdims=True)
    rest = values - of_training - of_patient
    by_training = patients * float((of_training**2).sum()) / ((arms - 1) * (trainings - 1))
    by_patient = trainings * float((of_patient**2).sum()) / ((arms - 1) * (patients - 1))
    by_both = float((rest**2).sum()) / ((arms - 1) * (trainings - 1) * (patients - 1))
    whole = by_training + max(by_patient - by_both, 0.0)
    value = float(difference.mean())
    # Of values that differ by one number throughout, rounding alone is left.
    if whole <= np.finfo(np.float64).eps * float((difference**2).mean()):
        return Difference(value, 0.0, of_patients)
    freedom = of_patients
    if by_training > 0:
        freedom = min(freedom, whole**2 * (arms - 1) * (trainings - 1) / by_training**2)
    return Difference(value, float(np.sqrt(2 * whole / (trainings * patients))), freedom)
