"""The test over trainings and patients: known answers where only one of them varies, and the share of false alarms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from nnunet_difftumor.evaluation.comparing.over_trainings import over_trainings


def against_nothing(table: np.ndarray) -> float:
    """The test of an arm with these values against one whose values are all 0."""
    return over_trainings(np.stack([np.zeros_like(table), table]), 0, 1).p


def test_where_only_trainings_differ_it_is_their_t_test():
    of_training = np.array([0.3, 0.1, 0.5])
    expected = ttest_1samp(of_training, 0).pvalue
    assert against_nothing(np.tile(of_training[:, None], (1, 40))) == pytest.approx(expected)
    assert expected > 0.05, "three seeds, though 40 patients agree in each"


def test_where_only_patients_differ_it_is_their_t_test():
    of_patient = np.random.default_rng(0).normal(0.4, 1, 25)
    assert against_nothing(np.tile(of_patient, (3, 1))) == pytest.approx(ttest_1samp(of_patient, 0).pvalue)


def test_where_only_trainings_differ_arms_are_pooled_as_in_a_two_way_analysis_of_variance():
    """Of the textbook: arms by seeds without replication, the difference of two arms by the mean square of both."""
    table = np.array([[0.50, 0.62, 0.55], [0.58, 0.66, 0.67], [0.41, 0.60, 0.52], [0.61, 0.70, 0.66]])
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    square = (rest**2).sum() / 6
    expected = 2 * student.sf(abs(table[1].mean() - table[0].mean()) / np.sqrt(2 * square / 3), 6)
    values = np.repeat(table[:, :, None], 30, axis=2)
    assert over_trainings(values, 0, 1).p == pytest.approx(expected)


def test_the_interval_of_patients_is_that_of_their_t_test():
    of_patient = np.random.default_rng(0).normal(0.4, 1, 25)
    expected = ttest_1samp(of_patient, 0).confidence_interval()
    found = over_trainings(np.stack([np.zeros((3, 25)), np.tile(of_patient, (3, 1))]), 0, 1)
    assert found.interval == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_intervals_hold_the_truth_about_as_often_as_stated(trainings, spread):
    rng, held = np.random.default_rng(trainings), 0
    for _ in range(1000):
        values = spread * rng.standard_normal((3, trainings, 1)) + rng.standard_normal((3, 1, 30))
        values[1] += 0.7
        low, high = over_trainings(values + rng.standard_normal((3, trainings, 30)), 0, 1).interval
        held += low < 0.7 < high
    assert 0.88 < held / 1000 < 0.99


def test_no_difference_at_all_and_the_same_one_everywhere():
    assert against_nothing(np.zeros((3, 10))) == 1
    assert against_nothing(np.full((3, 10), 0.1)) == 0


@pytest.mark.parametrize("arms", [2, 4])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_false_alarms_are_about_as_frequent_as_stated(arms, spread):
    """Of 2,000 experiments with three seeds in which nothing differs: up to 7 %. With two seeds, which experiments do
    not test, they are up to 13 %."""
    rng, alarms = np.random.default_rng(arms), 0
    for _ in range(2000):
        values = spread * rng.standard_normal((arms, 3, 1)) + rng.standard_normal((arms, 1, 30))
        alarms += over_trainings(values + rng.standard_normal((arms, 3, 30)), 0, 1).p < 0.05
    assert 0.03 < alarms / 2000 < 0.09


@given(st.integers(2, 4), st.integers(2, 5), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_order_sign_and_unit_do_not_matter(arms, trainings, patients, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.2, 1, (arms, trainings, patients))
    p = over_trainings(values, 0, 1).p
    assert 0 <= p <= 1
    shuffled = values[:, rng.permutation(trainings)][:, :, rng.permutation(patients)]
    for other in (shuffled, -values, 1000 * values, values + rng.normal(0, 1, (1, trainings, patients))):
        assert over_trainings(other, 0, 1).p == pytest.approx(p, rel=1e-6, abs=1e-12)
    assert over_trainings(values, 1, 0).p == pytest.approx(p)
