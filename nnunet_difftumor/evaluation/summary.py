"""Figures over all cases, each a ratio of two sums over cases, with a bootstrap interval over cases."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nnunet_difftumor.evaluation.comparison import BANDS_MM, CaseResult, Lesion

RESAMPLES = 2000
INTERVAL_PERCENT = (2.5, 97.5)

SIZES: dict[str, Callable[[Lesion], bool]] = {
    "all": lambda lesion: True,
    "early": lambda lesion: lesion.is_early,
    **{band: (lambda lesion, band=band: lesion.band == band) for band in BANDS_MM},
}


def summarize(cases: Sequence[CaseResult], *, seed: int = 0) -> dict:
    """Sums up the cases of one tumor label.

    A case is healthy if it has no true tumor. The mean DSC and NSD are over the cases with a tumor only: on a healthy
    case they are 0 for a single voxel as for a thousand; false positives and specificity measure those.

    Args:
        cases: at least one.
        seed: of the 2000 resamples, so that the same cases give the same interval.

    Returns:
        dsc, nsd, tumor_sensitivity[size], false_positives_per_scan[size of the false positive], patient_sensitivity
        (cases with a tumor in which anything is predicted) and patient_specificity (healthy cases in which nothing
        is); size is "all", "early" (< 20 mm) or a band. Each is a dict of value, low, high (95 % percentile bootstrap)
        and count, the cases or tumors that it is a share or mean of. value is None where count is 0, low and high
        where fewer than two cases contribute.
    """
    ill = np.array([bool(case.tumors) for case in cases])
    positive = np.array([bool(case.findings) for case in cases])
    ratios: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {
        ("dsc",): (np.array([case.dsc if case.tumors else 0.0 for case in cases]), ill),
        ("nsd",): (np.array([case.nsd if case.tumors else 0.0 for case in cases]), ill),
        ("patient_sensitivity",): (ill & positive, ill),
        ("patient_specificity",): (~ill & ~positive, ~ill),
    }
    for size, fits in SIZES.items():
        tumors = [[tumor for tumor in case.tumors if fits(tumor)] for case in cases]
        ratios["tumor_sensitivity", size] = _count([t for t in some if t.hit] for some in tumors), _count(tumors)
        false_positives = [[lesion for lesion in case.false_positives if fits(lesion)] for case in cases]
        ratios["false_positives_per_scan", size] = _count(false_positives), np.ones(len(cases))

    numerators, denominators = (np.array(sums, np.float64).T for sums in zip(*ratios.values(), strict=True))
    estimates = _estimates(numerators, denominators, seed)
    summary: dict = {}
    for (name, *size), estimate in zip(ratios, estimates, strict=True):
        if size:
            summary.setdefault(name, {})[size[0]] = estimate
        else:
            summary[name] = estimate
    return summary


def _count(lesions: Iterable[Sequence[Lesion]]) -> np.ndarray:
    return np.array([len(some) for some in lesions])


def _estimates(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> list[dict]:
    """One dict per column; the arrays are (cases, columns)."""
    n = len(numerators)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # how often each case
    with np.errstate(invalid="ignore"):  # 0 / 0: a resample without any case that contributes, which is left out
        values = numerators.sum(axis=0) / denominators.sum(axis=0)
        resampled = (draws @ numerators) / (draws @ denominators)
    estimates = []
    for column, value in enumerate(values):
        count = int(denominators[:, column].sum())
        low = high = None
        if np.count_nonzero(denominators[:, column]) >= 2:
            low, high = (float(bound) for bound in np.nanpercentile(resampled[:, column], INTERVAL_PERCENT))
        estimates.append({"value": float(value) if count else None, "low": low, "high": high, "count": count})
    return estimates
