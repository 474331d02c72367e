"""LiTS: the numbers come from its scoring program (github.com/PatrickChrist/lits-challenge-scoring: evaluate.py with
the `detect_lesions` that returns three values), run once on these label maps with NumPy's names of today."""

import numpy as np
import pytest
from boxes_of_labels import label_boxes

from nnunet_difftumor.evaluation.challenges.lits import NOT_MEASURABLE, of_case, over_cases
from nnunet_difftumor.evaluation.challenges.voxel_surfaces import surface_errors

SHAPE, SPACING_MM = (30, 24, 16), (0.8, 0.8, 2.5)  # x, y, z
LIVER, FOUND_LIVER = (1, (2, 2, 2), (26, 20, 12)), (1, (3, 2, 2), (26, 20, 12))
# Name -> boxes of lesions that are true and predicted.
CASES = {
    "shifted": ([((6, 6, 4), (6, 6, 4))], [((7, 6, 4), (6, 6, 4))]),
    "merged": ([((6, 6, 4), (5, 6, 4)), ((12, 6, 4), (5, 6, 4))], [((6, 6, 4), (11, 6, 4))]),
    "merged_too_large": ([((6, 6, 4), (3, 6, 4)), ((14, 6, 4), (3, 6, 4))], [((6, 6, 4), (11, 6, 4))]),
    "split": ([((6, 6, 4), (11, 6, 4))], [((6, 6, 4), (5, 6, 4)), ((12, 6, 4), (5, 6, 4))]),
    "false_finding_first": ([((14, 6, 4), (3, 4, 4))], [((5, 6, 4), (3, 3, 3)), ((12, 5, 3), (10, 8, 6))]),
    "too_large": ([((14, 6, 4), (3, 4, 4))], [((12, 5, 3), (10, 8, 6))]),
    "nothing_predicted": ([((6, 6, 4), (6, 6, 4))], []),
    "nothing_true": ([], [((7, 6, 4), (6, 6, 4))]),
    "healthy": ([], []),
    "no_liver": ([((6, 6, 4), (6, 6, 4))], [((6, 6, 4), (6, 6, 4))]),
}
PROGRAM = {
    "lesion_dice_per_case": 0.579876875,
    "lesion_dice_global": 0.585191793,
    "lesion_precision": 0.6,
    "lesion_recall": 0.6,
    "lesion_precision_greater_zero": 0.7,
    "lesion_recall_greater_zero": 0.7,
    "lesion_dice": 0.770965962,
    "lesion_jaccard": 0.696320346,
    "lesion_voe": 0.303679654,
    "lesion_rvd": -0.224242424,
    "lesion_assd_mm": 0.601913412,
    "lesion_rmsd_mm": 0.810262107,
    "lesion_mssd_mm": 1.948741241,
    "liver_dice_per_case": 0.865384615,
    "liver_dice_global": 0.910931174,
    "liver_jaccard": 0.833333333,
    "liver_voe": 0.166666667,
    "liver_rvd": 900.1,
    "liver_assd_mm": 900.2575,
    "liver_rmsd_mm": 900.436749165,
    "liver_mssd_mm": 900.82,
    "tumor_burden_rmse": 2846.358824559,
    "tumor_burden_max": 0.023076923,
}


def scores(name):
    true, found = ([(2, *box) for box in boxes] for boxes in CASES[name])
    truth = label_boxes(SHAPE, LIVER, *true)
    prediction = label_boxes(SHAPE, *([] if name == "no_liver" else [FOUND_LIVER]), *found)
    return of_case(np.ascontiguousarray(truth.T), np.ascontiguousarray(prediction.T), SPACING_MM[::-1])


def test_all_scores_are_those_of_the_program():
    assert over_cases([scores(name) for name in CASES]) == pytest.approx(PROGRAM, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "any_overlap", "above_half", "figures"),
    [
        # Dice, (V(T) - V(P)) / V(P), mean and largest distance in mm
        ("shifted", 1, 1, (0.833333, 0.0, 0.228571, 0.8)),
        # Lesions under one finding count as one that is detected: one of the two is missed.
        ("merged", 1, 1, (0.952381, -0.090909, 0.083333, 1.6)),
        ("merged_too_large", 1, 1, (0.705882, -0.454545, 0.42, 2.4)),
        ("split", 1, 1, (0.952381, 0.1, 0.083333, 1.6)),
        # 480 voxels for 48 are no detection,
        ("too_large", 1, 0, None),
        # unless another finding has the smaller number: the program then takes the lesion alone for the union.
        ("false_finding_first", 1, 1, (0.181818, -0.9, 2.796242, 5.292447)),
        ("nothing_predicted", 0, 0, None),
        ("nothing_true", 0, 0, None),
        ("healthy", 0, 0, None),
        ("no_liver", 1, 1, (1.0, 0.0, 0.0, 0.0)),
    ],
)
def test_detected_lesions_of_a_case_are_those_of_the_program(name, any_overlap, above_half, figures):
    lesion = scores(name)["lesion"]
    assert (lesion["detected_greater_zero"], lesion["detected"]) == (any_overlap, above_half)
    found = [tuple(one[key] for key in ("dice", "rvd", "assd_mm", "mssd_mm")) for one in lesion["of_detected"]]
    assert found == ([] if figures is None else [pytest.approx(figures, abs=1e-6)])


def test_two_missed_lesions_in_one_group_are_taken_off_twice():
    # One finding of 480 voxels on two lesions of 8: one group, not detected.
    truth = label_boxes(SHAPE, LIVER, (2, (13, 6, 4), (2, 2, 2)), (2, (18, 6, 4), (2, 2, 2)))
    prediction = label_boxes(SHAPE, FOUND_LIVER, (2, (12, 5, 3), (10, 8, 6)))
    lesion = of_case(truth.T, prediction.T, SPACING_MM[::-1])["lesion"]
    assert (lesion["true"], lesion["predicted"], lesion["detected"]) == (2, 1, -1)


def test_where_nothing_can_be_measured_the_program_puts_9001():
    overall = over_cases([scores("nothing_predicted")])
    assert overall["lesion_assd_mm"] == overall["lesion_rvd"] == NOT_MEASURABLE == 9001
    assert overall["lesion_precision"] == overall["lesion_recall"] == 0
    overall = over_cases([scores("healthy")])
    assert (overall["lesion_dice_per_case"], overall["lesion_dice_global"]) == (1, None)
    overall = over_cases([scores("no_liver")])
    assert (overall["liver_dice_per_case"], overall["liver_mssd_mm"]) == (0, 9001)
    assert overall["tumor_burden_max"] == pytest.approx(144 / 6240 - 9001)


@pytest.mark.parametrize(
    ("spacing_mm", "program"),
    [
        ((1.0, 1.0, 1.0), (2.754535771, 2.985137006, 5.099019514)),
        ((0.7, 0.7, 3.0), (2.752840881, 3.152609933, 9.108238029)),
    ],
)
def test_distances_of_two_balls_are_those_of_the_program(spacing_mm, program):
    def ball(x, radius):
        return sum((a - c) ** 2 for a, c in zip(np.ogrid[:33, :33, :33], (x, 16, 16), strict=True)) <= radius**2

    found = surface_errors(ball(16, 8), ball(18, 11), spacing_mm)
    assert (found["assd_mm"], found["rmsd_mm"], found["mssd_mm"]) == pytest.approx(program, abs=1e-8)
