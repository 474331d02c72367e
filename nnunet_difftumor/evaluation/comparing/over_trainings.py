"""A test over trainings and patients together, both taken as a sample of many. Defined in docs/statistics.md."""

import numpy as np
from scipy.stats import t as student


def over_trainings_p(values: np.ndarray, first: int, second: int) -> float:
    """Two-sided test that two arms have the same mean, for other seeds and other patients than these.

    Seeds and patients are crossed as readers and cases are in reader studies: an analysis of variance takes the
    variance of the difference apart (Dorfman, Berbaum and Metz, Investigative Radiology 1992), with the degrees of
    freedom of Hillis (Statistics in Medicine 2007), here at most those of the patients. How much seeds differ is taken
    to be alike in all arms: with three seeds, two arms alone would hardly tell.

    Args:
        values: (arms, trainings, patients), at least two of each; training s of every arm has the same seed.
        first, second: indices of the arms.

    Returns:
        p; 1 if the two are equal throughout.
    """
    arms, trainings, patients = values.shape
    difference = values[second] - values[first]
    if not difference.any():
        return 1.0
    # What is left of the values once the means of arms, and of trainings and patients over all arms, are taken away.
    values = values - values.mean(axis=0, keepdims=True)
    values = values - values.mean(axis=(1, 2), keepdims=True)
    of_training, of_patient = values.mean(axis=2, keepdims=True), values.mean(axis=1, keepdims=True)
    rest = values - of_training - of_patient
    by_training = patients * float((of_training**2).sum()) / ((arms - 1) * (trainings - 1))
    by_patient = trainings * float((of_patient**2).sum()) / ((arms - 1) * (patients - 1))
    by_both = float((rest**2).sum()) / ((arms - 1) * (trainings - 1) * (patients - 1))
    whole = by_training + max(by_patient - by_both, 0.0)
    # Of values that differ by one number throughout, rounding alone is left.
    if whole <= np.finfo(np.float64).eps * float((difference**2).mean()):
        return 0.0
    freedom = float((arms - 1) * (patients - 1))
    if by_training > 0:
        freedom = min(freedom, whole**2 * (arms - 1) * (trainings - 1) / by_training**2)
    error = np.sqrt(2 * whole / (trainings * patients))
    return float(2 * student.sf(abs(difference.mean()) / error, freedom))
