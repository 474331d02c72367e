"""Left and right are found from the direction, not from the order of axes."""

import numpy as np
import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.orientation import array_axes, directions, patient_axes

IDENTITY = {"sitk_stuff": {"direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}}
# File axes: x runs front to back, y head to foot, z left to right (a sagittal series).
SAGITTAL = {"sitk_stuff": {"direction": (0, 0, 1, 1, 0, 0, 0, -1, 0)}}


def test_axial_series_as_simpleitk_reads_it():
    assert patient_axes(IDENTITY, [0, 1, 2]) == (2, 1, 0)


def test_directions_of_both_readers_are_in_ras_space():
    # Array axes head, back, left: SimpleITK's identity is left, back, head.
    expected = [[0, 0, -1], [0, -1, 0], [1, 0, 0]]
    assert np.array_equal(directions(IDENTITY, [0, 1, 2]), expected)
    affine = np.diag([-0.7, -0.7, 2.0, 1.0])
    assert np.array_equal(directions({"nibabel_stuff": {"original_affine": affine}}, [0, 1, 2]), expected)


def test_sagittal_series_has_left_and_right_along_its_slices():
    assert patient_axes(SAGITTAL, [0, 1, 2]) == (0, 2, 1)


def test_transposition_of_the_plans_is_followed():
    # Array (z, y, x) becomes (x, z, y).
    assert patient_axes(IDENTITY, [2, 0, 1]) == (0, 2, 1)


def test_oblique_series_takes_the_nearest_axes():
    angle = np.deg2rad(30)
    turned = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    assert patient_axes({"sitk_stuff": {"direction": np.ravel(turned)}}, [0, 1, 2]) == (2, 1, 0)


def test_nibabel_affines_give_the_same_answer():
    affine = np.diag([0.7, 0.7, 2.0, 1.0])
    assert patient_axes({"nibabel_stuff": {"original_affine": affine}}, [0, 1, 2]) == (2, 1, 0)


def test_names_become_sorted_array_axes():
    assert array_axes(["left-right", "head-foot"], [("a", IDENTITY)], [0, 1, 2]) == (0, 2)
    assert array_axes([], [], [0, 1, 2]) == ()


def test_cases_with_different_orientations_are_refused_by_name():
    with pytest.raises(InputError, match="cases a and b have different orientations"):
        array_axes(["left-right"], [("a", IDENTITY), ("b", SAGITTAL)], [0, 1, 2])


def test_reader_without_directions_is_refused():
    with pytest.raises(InputError, match="gives no directions"):
        array_axes(["left-right"], [("a", {"spacing": (1, 1, 1)})], [0, 1, 2])
