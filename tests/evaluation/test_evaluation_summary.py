"""Figures over cases: what counts in which, and their bootstrap intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_difftumor.evaluation.comparison import CaseResult, Lesion
from nnunet_difftumor.evaluation.summary import summarize


def case(tumors=(), false_positives=(), *, dsc=0.5) -> CaseResult:
    """A scan with tumors as (diameter_mm, detected) and false positives as diameter_mm."""
    truths = tuple(Lesion(diameter_mm, hit) for diameter_mm, hit in tumors)
    hits = tuple(lesion for lesion in truths if lesion.hit)
    findings = hits + tuple(Lesion(diameter_mm, False) for diameter_mm in false_positives)
    if not truths:
        dsc = None if not findings else 0.0
    return CaseResult(dsc, dsc, truths, findings)


def test_mean_dsc_is_over_cases_with_tumors_only():
    summary = summarize([case([(30, True)], dsc=0.8), case([(30, True)], dsc=0.4), case(), case((), [8])])
    assert summary["dsc"]["value"] == pytest.approx(0.6)
    assert summary["dsc"]["count"] == 2


def test_sensitivity_is_per_tumor_and_by_size():
    summary = summarize([case([(3, False), (7, True), (15, False)]), case([(15, True), (30, True), (90, False)])])
    sensitivity = {size: estimate["value"] for size, estimate in summary["tumor_sensitivity"].items()}
    assert sensitivity == {
        "all": 3 / 6,
        "early": 2 / 4,
        "under_5mm": 0,
        "tiny": 1,
        "small": 1 / 2,
        "medium": 1,
        "large": 0,
    }
    assert summary["tumor_sensitivity"]["small"]["count"] == 2


def test_false_positives_are_per_scan_healthy_ones_included():
    summary = summarize([case([(30, True)], [3, 12]), case((), [12]), case(), case()])
    assert summary["false_positives_per_scan"]["all"]["value"] == 3 / 4
    assert summary["false_positives_per_scan"]["small"]["value"] == 2 / 4
    assert summary["false_positives_per_scan"]["large"]["value"] == 0


def test_patient_level_asks_whether_anything_is_predicted():
    cases = [case([(30, True)]), case([(30, False)]), case([(30, False)], [9]), case((), [9]), case(), case(), case()]
    summary = summarize(cases)
    assert summary["patient_sensitivity"]["value"] == 2 / 3
    assert summary["patient_specificity"]["value"] == 3 / 4


def test_what_has_nothing_to_count_is_none():
    summary = summarize([case(), case()])
    nothing = {"value": None, "low": None, "high": None, "count": 0}
    assert summary["dsc"] == summary["patient_sensitivity"] == summary["tumor_sensitivity"]["tiny"] == nothing
    assert summarize([case([(30, True)])])["patient_specificity"] == nothing


def test_one_contributing_case_has_a_value_but_no_interval():
    estimate = summarize([case([(30, True)], dsc=0.7), case(), case()])["dsc"]
    assert (estimate["value"], estimate["low"], estimate["high"]) == (0.7, None, None)


def test_interval_of_a_share_agrees_with_the_binomial_one():
    cases = [case([(30, number % 2 == 0)]) for number in range(100)]
    estimate = summarize(cases)["tumor_sensitivity"]["all"]
    half_width = 1.96 * math.sqrt(0.25 / 100)
    assert estimate["low"] == pytest.approx(0.5 - half_width, abs=0.02)  # in steps of 0.01, from 2000 resamples
    assert estimate["high"] == pytest.approx(0.5 + half_width, abs=0.02)


def test_interval_resamples_cases_and_not_tumors():
    # All tumors of a case share its fate: the interval is as wide as that of 10 cases, not of 100 tumors.
    clustered = summarize([case([(30, number % 2 == 0)] * 10) for number in range(10)])["tumor_sensitivity"]["all"]
    single = summarize([case([(30, number % 2 == 0)]) for number in range(10)])["tumor_sensitivity"]["all"]
    assert (clustered["low"], clustered["high"]) == (single["low"], single["high"])


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    cases = [case([(30, True)], dsc=number / 40) for number in range(40)]
    assert summarize(cases, seed=3) == summarize(cases, seed=3)
    assert summarize(cases, seed=3)["dsc"] != summarize(cases, seed=4)["dsc"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_interval_lies_within_the_range_of_the_cases(values):
    estimate = summarize([case([(30, True)], dsc=dsc) for dsc in values])["dsc"]
    rounding = 1e-12
    assert min(values) - rounding <= estimate["low"] <= estimate["high"] <= max(values) + rounding
