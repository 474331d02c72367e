"""Which lesions match: answers known by counting, and the best pairs against brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.measures.case import measure
from nnunet_difftumor.evaluation.measures.matching import Components, MatchingRule, match

SPACING_MM = (1.0, 1.0, 1.0)


def bars(*spans: tuple[int, int], row: int = 0) -> np.ndarray:
    """Lines of voxels along x, from start to end."""
    mask = np.zeros((3, 9, 40), bool)
    for start, end in spans:
        mask[1, row, start:end] = True
    return mask


def result(truth, prediction, rule):
    return measure(truth, prediction, spacing_mm=SPACING_MM, nsd_tolerance_mm=1.0, rule=rule)


@pytest.mark.parametrize(
    ("rule", "detected", "false"),
    [
        # True bars of 10 at 0 and 12; one finding over 6 to 16 (IoU 4/16 with each), one of 2 alone, and one inside.
        (MatchingRule(), [True, True], 1),
        (MatchingRule("iou", 0.2), [True, True], 1),
        (MatchingRule("iou", 0.26), [False, False], 2),
        (MatchingRule("one-to-one"), [True, False], 1),
        (MatchingRule("one-to-one", 0.2), [True, False], 1),
    ],
)
def test_a_finding_over_two_tumors_counts_by_the_rule(rule, detected, false):
    found = result(bars((0, 10), (12, 22)), bars((6, 16), (30, 32)), rule)
    assert sorted((tumor.matched for tumor in found.tumors), reverse=True) == detected
    assert len(found.false_positives) == false


def test_of_two_findings_in_one_tumor_the_second_is_false_one_to_one_only():
    truth, prediction = bars((0, 20)), bars((0, 6), (8, 20))
    for rule, false in ((MatchingRule(), 0), (MatchingRule("iou", 0.3), 0), (MatchingRule("one-to-one", 0.3), 1)):
        found = result(truth, prediction, rule)
        assert [tumor.matched for tumor in found.tumors] == [True] and len(found.false_positives) == false
    # With all its partners together: 18 of 20 voxels; with the larger one alone: 12.
    assert result(truth, prediction, MatchingRule()).tumors[0].dsc == pytest.approx(2 * 18 / (20 + 18))
    assert result(truth, prediction, MatchingRule("one-to-one")).tumors[0].dsc == pytest.approx(2 * 12 / (20 + 12))


def test_a_network_that_labels_nearly_everything_detects_by_overlap_but_not_by_iou():
    truth = bars((0, 4)) | bars((20, 24), row=8)
    everything = np.ones_like(truth)
    assert [tumor.matched for tumor in result(truth, everything, MatchingRule()).tumors] == [True, True]
    assert not any(tumor.matched for tumor in result(truth, everything, MatchingRule("iou", 0.1)).tumors)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.3]))
def test_pairs_one_to_one_are_the_best_of_all(seed, min_iou):
    rng = np.random.default_rng(seed)
    truth, found = (Components.of(rng.random((4, 5, 6)) < 0.12, SPACING_MM) for _ in range(2))
    overlap, matched = match(truth, found, MatchingRule("one-to-one", min_iou))
    assert matched.sum(axis=0).max(initial=0) <= 1 and matched.sum(axis=1).max(initial=0) <= 1
    iou = np.zeros(overlap.shape)
    for i, j in np.ndindex(*overlap.shape):
        first, second = truth.labels == i + 1, found.labels == j + 1
        assert overlap[i, j] == (first & second).sum()
        value = (first & second).sum() / (first | second).sum()
        iou[i, j] = value if value > 0 and value >= min_iou else 0
    assert (iou[matched] > 0).all()
    rows, columns = sorted(iou.shape)
    if columns <= 6:
        small = iou if iou.shape[0] <= iou.shape[1] else iou.T
        best = max((sum(small[i, p[i]] for i in range(rows)) for p in permutations(range(columns), rows)), default=0)
        assert iou[matched].sum() == pytest.approx(best)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_matching_is_fair_to_both_sides_and_stricter_rules_find_less(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = (rng.random((4, 6, 6)) < 0.15 for _ in range(2))
    rules = (MatchingRule(), MatchingRule("iou", 0.2), MatchingRule("one-to-one", 0.2))
    found = [result(truth, prediction, rule) for rule in rules]
    for one, rule in zip(found, rules, strict=True):
        mirrored = result(prediction, truth, rule)
        assert sum(lesion.matched for lesion in one.findings) == sum(lesion.matched for lesion in mirrored.tumors)
        assert all((tumor.dsc > 0) == tumor.matched for tumor in one.tumors)
    detected = [sum(tumor.matched for tumor in one.tumors) for one in found]
    assert detected == sorted(detected, reverse=True)


@pytest.mark.parametrize(
    ("name", "min_iou", "said"),
    [
        ("nearest", 0.0, "`match` is 'nearest', expected one of any-overlap, iou, one-to-one"),
        ("iou", 1.5, "`min_iou` is 1.5, expected 0 to 1"),
        ("iou", float("nan"), "`min_iou` is nan, expected 0 to 1"),
        ("any-overlap", 0.3, "any-overlap has no use for"),
    ],
)
def test_rules_that_there_are_not(name, min_iou, said):
    with pytest.raises(InputError, match=said):
        MatchingRule(name, min_iou)
