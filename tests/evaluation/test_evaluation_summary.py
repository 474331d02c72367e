"""Figures over cases: what counts in which, and their bootstrap intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_difftumor.evaluation.figures.summary import summarize
from nnunet_difftumor.evaluation.measures.case import CaseResult, Lesion
from nnunet_difftumor.evaluation.results.rows import counted


def case(tumors=(), false_positives=(), *, dsc=0.5) -> CaseResult:
    """A scan with tumors as (diameter_mm, detected) and false positives as diameter_mm."""
    truths = tuple(Lesion(diameter_mm, hit, dsc if hit else 0.0) for diameter_mm, hit in tumors)
    hits = tuple(lesion for lesion in truths if lesion.matched)
    findings = hits + tuple(Lesion(diameter_mm, False) for diameter_mm in false_positives)
    if not truths:
        dsc = None if not findings else 0.0
    return CaseResult(dsc, dsc, None, 10.0 * len(truths), 10.0 * len(findings), truths, findings)


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


def test_lesion_wise_figures_take_undetected_tumors_as_zero():
    summary = summarize([case([(30, True), (8, False)], [5], dsc=0.6), case([(30, True)], [5, 6], dsc=0.8), case()])
    assert summary["lesion_dsc"]["all"] == summary["lesion_dsc"]["all"] | {"value": pytest.approx(1.4 / 3), "count": 3}
    assert summary["lesion_dsc"]["early"]["value"] == 0
    assert summary["lesion_precision"]["value"] == pytest.approx(2 / 5)
    assert summary["lesion_precision"]["count"] == 5
    # Sensitivity 2/3, precision 2/5.
    assert summary["lesion_f1"]["value"] == pytest.approx(2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5))


def test_f1_of_nothing_predicted_is_zero_and_of_nothing_true_is_none():
    assert summarize([case([(30, False)]), case([(9, False)])])["lesion_f1"]["value"] == 0
    assert summarize([case((), [9]), case()])["lesion_f1"]["value"] is None


def test_volume_error_is_relative_and_bias_in_ml():
    summary = summarize([case([(30, True)], [8]), case([(30, False)]), case((), [8, 8])])  # 10 ml each
    assert summary["volume_error"]["value"] == pytest.approx((1 + 1) / 2)
    assert summary["volume_bias_ml"]["value"] == pytest.approx((10 - 10 + 20) / 3)


def test_scans_of_one_patient_are_resampled_together():
    cases = [case([(30, number % 2 == 0)]) for number in range(10)]
    alone = summarize(cases)["tumor_sensitivity"]["all"]
    # Five patients with two scans of one fate: as five cases.
    doubled = [case([(30, number % 2 == 0)]) for number in range(5) for _ in range(2)]
    together = summarize(doubled, patients=[f"p{number}" for number in range(5) for _ in range(2)])
    five = summarize([case([(30, number % 2 == 0)]) for number in range(5)])
    bounds = together["tumor_sensitivity"]["all"]
    assert (bounds["low"], bounds["high"]) == tuple(five["tumor_sensitivity"]["all"][key] for key in ("low", "high"))
    assert bounds["high"] - bounds["low"] > alone["high"] - alone["low"]
    assert summarize(doubled, patients=["same"] * 10)["tumor_sensitivity"]["all"]["low"] is None


def test_one_case_is_not_said_to_be_several():
    assert counted(1, "cases with tumors") == "1 case with tumors" and counted(0, "tumors") == "0 tumors"
    assert counted(2, "findings") == "2 findings" and counted(1, "findings") == "1 finding"
