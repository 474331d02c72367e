"""Tests of paired values. Each is defined in docs/statistics.md."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, permutation_test, rankdata, wilcoxon

PERMUTATIONS = 9999


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided Wilcoxon signed-rank test, zeros left out (Wilcoxon, 1945): exact up to 50 pairs without ties, else
    the normal approximation with correction for ties, as SciPy does it.

    Args:
        differences: of the pairs; 1 as the result if all are 0.
    """
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, zero_method="wilcox").pvalue)


def rank_biserial(differences: np.ndarray) -> float:
    """Effect size of the same test, -1 to 1: the share of the rank sum that is positive minus that which is negative
    (Kerby, 2014). 0 if all differences are 0.
    """
    some = differences[differences != 0]
    if not some.size:
        return 0.0
    ranks = rankdata(np.abs(some))
    return float((ranks[some > 0].sum() - ranks[some < 0].sum()) / ranks.sum())


def sign_flip_p(differences: np.ndarray, *, seed: int) -> float:
    """Two-sided permutation test of the mean difference: signs of the pairs are flipped, all ways if there are at most
    9,999, else that many at random.

    Args:
        differences: of the pairs; 1 as the result with fewer than two of them that are not 0.
        seed: of the permutations.
    """
    some = differences[differences != 0]
    if some.size < 2:
        return 1.0
    found = permutation_test(
        (some,),
        lambda values, axis: np.abs(np.mean(values, axis=axis)),
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        alternative="greater",
        vectorized=True,
        random_state=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar test: the binomial test of the discordant pairs; 1 without any.

    Args:
        only_first, only_second: pairs in which only this one is right.
    """
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family of tests (Holm, 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    so_far = 0.0
    for place, index in enumerate(order):
        so_far = max(so_far, (len(p_values) - place) * p_values[index])
        adjusted[index] = min(so_far, 1.0)
    return adjusted.tolist()
