"""FROC, average precision and AUC: by counting, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from nnunet_difftumor.evaluation.figures.curves import (
    Ranked,
    area_under_roc,
    average_precision,
    froc_score,
    sensitivity_at,
)
from nnunet_difftumor.evaluation.figures.summary import summarize
from nnunet_difftumor.evaluation.measures.case import measure

ONCE = np.ones((1, 2))


def test_froc_of_two_scans_by_counting():
    # Scan 0 has three lesions, found with .9, .5 and not at all; scan 1 none. False candidates at .8, .5 and .2.
    ranked = Ranked.of([[0.9, 0.5], []], [[0.8], [0.5, 0.2]], [3, 0])
    at = {rate: float(sensitivity_at(ranked, rate, ONCE)[0]) for rate in (0.25, 0.5, 0.9, 1.0, 8.0)}
    # At .5 a lesion and a false candidate come together: the lesion is not had without it.
    assert at == {0.25: 1 / 3, 0.5: 1 / 3, 0.9: 1 / 3, 1.0: 2 / 3, 8.0: 2 / 3}
    assert froc_score(ranked, ONCE)[0] == pytest.approx((3 * 1 / 3 + 4 * 2 / 3) / 7)
    assert average_precision(ranked, ONCE)[0] == pytest.approx((1 / 3) * 1 + (1 / 3) * (2 / 4))


def test_a_scan_that_weighs_twice_counts_as_two():
    found, false, lesions = [[0.9, 0.3], [0.6]], [[0.7], [0.4, 0.2]], [2, 2]
    weighted = Ranked.of(found, false, lesions)
    doubled = Ranked.of([*found, found[1]], [*false, false[1]], [*lesions, lesions[1]])
    weights, once = np.array([[1.0, 2.0]]), np.ones((1, 3))
    for figure in (average_precision, froc_score, lambda r, w: sensitivity_at(r, 1.0, w)):
        assert figure(weighted, weights) == pytest.approx(figure(doubled, once))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=30))
def test_average_precision_and_auc_are_those_of_scikit_learn(entries):
    true = np.array([good for good, _ in entries])
    scores = np.array([tenths / 10 for _, tenths in entries])
    if not 0 < true.sum() < len(true):
        return
    ranked = Ranked.of([scores[true].tolist()], [scores[~true].tolist()], [int(true.sum())])
    assert average_precision(ranked, np.ones((1, 1)))[0] == pytest.approx(average_precision_score(true, scores))
    weights = np.ones((1, len(true)))
    assert area_under_roc(scores, true, weights)[0] == pytest.approx(roc_auc_score(true, scores))
    twice = weights.copy()
    twice[0, 0] = 2
    expected = roc_auc_score(np.append(true, true[0]), np.append(scores, scores[0]))
    assert area_under_roc(scores, true, twice)[0] == pytest.approx(expected)


def test_no_lesions_or_one_kind_of_case_have_no_figure():
    nobody = Ranked.of([[]], [[0.3]], [0])
    with np.errstate(invalid="ignore", divide="ignore"):
        assert np.isnan(average_precision(nobody, np.ones((1, 1)))).all()
        assert np.isnan(sensitivity_at(nobody, 1.0, np.ones((1, 1)))).all()
        assert np.isnan(area_under_roc(np.array([0.2, 0.7]), np.array([True, True]), ONCE)).all()


def scan(tumor: float, elsewhere: float, *, ill: bool = True):
    """A ball that is true (if ill) and has the probability `tumor`; another place has `elsewhere`."""
    grid = np.ogrid[:12, :30, :30]
    first, second = (sum((a - c) ** 2 for a, c in zip(grid, at, strict=True)) <= 9 for at in ((6, 8, 8), (6, 22, 22)))
    probability = np.where(first, tumor, np.where(second, elsewhere, 0.01)).astype(np.float32)
    truth = first if ill else np.zeros_like(first)
    return measure(truth, probability > 0.5, spacing_mm=(1.0, 1.0, 1.0), nsd_tolerance_mm=2.0, probability=probability)


def test_candidates_have_the_highest_probability_and_are_false_where_no_tumor_is():
    found = scan(0.75, 0.25)
    (tumor,) = found.tumors
    assert tumor.confidence == 0.75 and found.score == 0.75
    assert [(c.confidence, c.matched) for c in found.false_candidates] == [(0.25, False)]
    assert scan(0.05, 0.25).tumors[0].confidence is None, "below the threshold there is no candidate"
    assert scan(0.75, 0.25, ill=False).false_candidates[0].diameter_mm == pytest.approx(6, abs=0.4)


def test_probabilities_of_a_few_scans_summed_up():
    cases = [scan(0.9, 0.2), scan(0.4, 0.6), scan(0.3, 0.05, ill=False), scan(0.05, 0.05, ill=False)]
    summary = summarize(cases)
    assert summary["patient_auc"]["value"] == 1.0  # .9 and .6 against .3 and .05
    # Ranked: lesion .9, false .6, lesion .4, false .3, false .2.
    assert summary["average_precision"]["value"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert summary["froc_sensitivity"]["all"]["0.125"]["value"] == 0.5
    assert summary["froc_sensitivity"]["early"]["0.25"]["value"] == 1.0
    assert "patient_auc" not in summarize(
        [
            *cases,
            measure(
                np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool), spacing_mm=(1.0, 1.0, 1.0), nsd_tolerance_mm=1.0
            ),
        ]
    )
