"""Tasks of the Medical Segmentation Decathlon: every label by itself, at a tolerance that is stated.

NSD numbers come from DeepMind's surface-distance, which the challenge names, run once on these label maps.
"""

import pytest
from boxes_of_labels import label_boxes

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.challenges.catalogue import find_challenge
from nnunet_difftumor.evaluation.challenges.msd import TASKS

SHAPE, SPACING_MM = (12, 24, 30), (3.0, 0.8, 0.8)  # z, y, x
TRUE_ORGAN = (1, (2, 3, 3), (8, 16, 20))
TRUTH = label_boxes(SHAPE, TRUE_ORGAN, (2, (4, 6, 6), (4, 6, 6)))
PREDICTION = label_boxes(SHAPE, (1, (2, 3, 5), (8, 16, 20)), (2, (4, 6, 8), (4, 6, 6)), (2, (5, 13, 16), (3, 4, 4)))
HEALTHY = label_boxes(SHAPE, TRUE_ORGAN)


@pytest.mark.parametrize(("tolerance_mm", "nsd"), [(1.0, 0.544979822864633), (3.0, 0.8114366466671589)])
def test_a_tumor_is_scored_at_the_stated_tolerance(tolerance_mm, nsd):
    task = find_challenge("msd-pancreas", tolerance_mm=tolerance_mm)
    cancer = task.of_case(TRUTH, PREDICTION, SPACING_MM)["cancer"]
    # 144 voxels, of which 96 are among the 192 that are predicted.
    assert (cancer["dice"], cancer["nsd"]) == pytest.approx((2 * 96 / (144 + 192), nsd), abs=1e-9)
    assert task.result({})["settings"] == {"nsd_tolerance_mm": tolerance_mm}


def test_an_organ_is_scored_without_its_tumors():
    organ = find_challenge("msd-liver", tolerance_mm=1.0).of_case(TRUTH, HEALTHY, SPACING_MM)["liver"]
    voxels = 8 * 16 * 20
    assert organ["dice"] == pytest.approx(2 * (voxels - 144) / (2 * voxels - 144))


def test_a_label_in_neither_map_is_left_out_of_the_mean():
    task = find_challenge("msd-liver", tolerance_mm=1.0)
    pairs = ((TRUTH, TRUTH), (TRUTH, HEALTHY), (HEALTHY, HEALTHY))
    cases = [task.of_case(truth, prediction, SPACING_MM) for truth, prediction in pairs]
    assert [case["cancer"]["dice"] for case in cases] == [1, 0, None]
    assert task.over_cases(cases)["cancer_dice"] == task.over_cases(cases)["cancer_nsd"] == 1 / 2
    assert task.over_cases(cases[2:])["cancer_dice"] is None


@pytest.mark.parametrize("name", TASKS)
def test_a_task_needs_a_tolerance(name):
    with pytest.raises(InputError, match=f"`challenge` {name}: needs `challenge_tolerance_mm`"):
        find_challenge(name, tolerance_mm=None)
    with pytest.raises(InputError, match="expected more than 0 mm, got 0"):
        find_challenge(name, tolerance_mm=0.0)
    assert list(find_challenge(name, tolerance_mm=2.0).definitions) == list(
        find_challenge(name, tolerance_mm=2.0).over_cases([])
    )


@pytest.mark.parametrize("name", [None, "lits", "kits23", "uls23"])
def test_a_tolerance_for_another_challenge_is_refused(name):
    with pytest.raises(InputError, match="for tasks of the decathlon"):
        find_challenge(name, tolerance_mm=2.0)


def test_an_unknown_challenge_is_refused_with_all_names():
    with pytest.raises(InputError, match="`challenge` is 'kits19', expected one of lits, kits23, msd-liver"):
        find_challenge("kits19", tolerance_mm=None)
