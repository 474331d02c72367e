"""KiTS23: the numbers come from its evaluation (github.com/neheller/kits23, kits23/evaluation/metrics.py, with
DeepMind's surface-distance), run once on these label maps."""

import pytest
from boxes_of_labels import label_boxes

from nnunet_difftumor.evaluation.challenges.kits23 import of_case, over_cases

SHAPE, SPACING_MM = (12, 24, 30), (3.0, 0.8, 0.8)  # z, y, x
KIDNEY, TUMOR, CYST = 1, 2, 3
TRUE_KIDNEY = (KIDNEY, (2, 3, 3), (8, 16, 20))
TRUTH = label_boxes(SHAPE, TRUE_KIDNEY, (TUMOR, (4, 6, 6), (4, 6, 6)), (CYST, (4, 13, 16), (3, 4, 4)))
# The cyst is taken for a tumor: right as a mass, wrong as a tumor.
PREDICTION = label_boxes(
    SHAPE, (KIDNEY, (2, 3, 5), (8, 16, 20)), (TUMOR, (4, 6, 8), (4, 6, 6)), (TUMOR, (5, 13, 16), (3, 4, 4))
)
HEALTHY = label_boxes(SHAPE, TRUE_KIDNEY)


def pairs(case):
    return [(of_class["dice"], of_class["surface_dice"]) for of_class in case.values()]


def test_classes_of_a_case_are_scored_as_published():
    published = [(0.9, 0.6913023942664153), (2 / 3, 0.7127978644017514), (4 / 7, 0.544979822864633)]
    case = of_case(TRUTH, PREDICTION, SPACING_MM)
    assert list(case) == ["kidney_and_mass", "mass", "tumor"]
    assert pairs(case) == [pytest.approx(pair, abs=1e-9) for pair in published]


def test_a_class_in_neither_map_scores_1_and_in_one_of_them_0():
    assert pairs(of_case(HEALTHY, HEALTHY, SPACING_MM)) == [(1, 1)] * 3
    assert pairs(of_case(HEALTHY, PREDICTION, SPACING_MM))[1:] == [(0, 0)] * 2
    assert pairs(of_case(TRUTH, HEALTHY, SPACING_MM)) == [(1, 1), (0, 0), (0, 0)]


def test_overall_scores_are_means_over_cases_and_then_over_classes():
    overall = over_cases([of_case(TRUTH, PREDICTION, SPACING_MM), of_case(HEALTHY, HEALTHY, SPACING_MM)])
    assert overall["tumor_dice"] == pytest.approx((4 / 7 + 1) / 2)
    assert overall["mean_dice"] == pytest.approx(((0.9 + 1) + (2 / 3 + 1) + (4 / 7 + 1)) / 6)
    assert overall["mean_surface_dice"] == pytest.approx((0.6913023943 + 0.7127978644 + 0.5449798229 + 3) / 6)
