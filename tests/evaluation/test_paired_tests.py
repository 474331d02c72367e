"""Paired tests against published examples, statsmodels' definitions by hand, and brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_difftumor.evaluation.comparing.paired_tests import holm, mcnemar_p, rank_biserial, sign_flip_p, wilcoxon_p

# Darwin's pairs of cross- and self-fertilised maize, in eighths of an inch (SciPy's and R's textbook example).
DARWIN = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75], float)
# R's help page of wilcox.test: depression scores before and after (Hollander and Wolfe, 1973, p. 29).
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def test_wilcoxon_of_textbooks():
    assert wilcoxon_p(DARWIN) == pytest.approx(0.0413, abs=5e-4)  # statistic 24
    # R gives 0.01953 one-sided.
    assert wilcoxon_p(BEFORE - AFTER) == pytest.approx(2 * 0.01953, abs=1e-4)


def test_mcnemar_of_rs_help_page():
    # Approval ratings (Agresti, 1990, p. 350): 150 and 86 changed their minds; exact p = 3.7e-5 (exact2x2).
    assert mcnemar_p(150, 86) == pytest.approx(3.716e-5, rel=0.01)
    assert mcnemar_p(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar_p(0, 0) == 1.0


def test_holm_of_a_worked_example():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_keeps_the_order_and_never_lowers(values):
    adjusted = holm(values)
    assert all(a >= p or a == 1 for a, p in zip(adjusted, values, strict=True))
    by_value = [a for _, a in sorted(zip(values, adjusted, strict=True))]
    assert by_value == sorted(by_value)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=9))
def test_sign_flips_are_counted_exactly_for_few_pairs(values):
    differences = np.array(values, float)
    some = differences[differences != 0]
    if len(some) < 2:
        assert sign_flip_p(differences, seed=0) == 1
        return
    flips = [abs(np.dot(signs, some)) for signs in product((-1, 1), repeat=len(some))]
    expected = np.mean([value >= abs(some.sum()) - 1e-9 for value in flips])
    assert sign_flip_p(differences, seed=0) == pytest.approx(expected)


def test_many_pairs_are_flipped_at_random_from_the_seed():
    differences = np.random.default_rng(0).normal(0.2, 1, 60)
    assert sign_flip_p(differences, seed=3) == sign_flip_p(differences, seed=3)
    # As large as the t test's, which it approximates.
    from scipy.stats import ttest_1samp

    assert sign_flip_p(differences, seed=3) == pytest.approx(ttest_1samp(differences, 0).pvalue, abs=0.02)


def test_effect_size_is_one_where_all_pairs_agree():
    assert rank_biserial(np.array([1.0, 2.0, 0.0])) == 1.0
    assert rank_biserial(np.array([-1.0, -2.0])) == -1.0
    assert rank_biserial(DARWIN) == pytest.approx((96 - 24) / 120)
    assert rank_biserial(np.zeros(3)) == 0.0
