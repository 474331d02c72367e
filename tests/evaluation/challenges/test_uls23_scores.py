"""ULS23: lengths of axes come from its evaluation (github.com/DIAGNijmegen/ULS23, evaluation/misc.py), run once on
these masks; the rest is by hand from its formulas."""

import math

import numpy as np
import pytest
from boxes_of_labels import label_boxes

from nnunet_difftumor.evaluation.challenges.axes import axes_of
from nnunet_difftumor.evaluation.challenges.uls23 import of_case, over_cases

SHAPE, SPACING_MM = (6, 30, 30), (3.0, 0.8, 0.8)  # z, y, x


def ellipse(half_axes, angle):
    """In one slice, and a smaller one beside it."""
    y, x = np.ogrid[-14:16, -15:15]
    along, across = math.cos(angle) * x + math.sin(angle) * y, -math.sin(angle) * x + math.cos(angle) * y
    mask = np.zeros(SHAPE, bool)
    for z, less in ((2, 0), (3, 2)):
        mask[z] = (along / (half_axes[0] - less)) ** 2 + (across / (half_axes[1] - less)) ** 2 <= 1
    return mask


def boxes(*starts_and_sizes):
    return label_boxes(SHAPE, *((1, *one) for one in starts_and_sizes)) > 0


@pytest.mark.parametrize(
    ("mask", "published"),
    [
        (boxes(((1, 5, 5), (3, 4, 9))), (8.54400374531753, 3.1622776601683795)),
        (ellipse((11, 5), 0.5), (21.633307652783937, 7.211102550927978)),
        (ellipse((8, 8), 0.0), (16.0, 16.0)),
        # Of two components in a slice the larger one counts, although the other one is longer.
        (boxes(((2, 3, 3), (1, 5, 5)), ((2, 3, 15), (1, 2, 12))), (5.656854249492381, 5.656854249492381)),
        (boxes(((2, 4, 4), (1, 1, 7))), (6.0, 6.0)),
        (boxes(((2, 4, 4), (4, 1, 1))), (0.0, 0.0)),
        (boxes(), (0.0, 0.0)),
    ],
    ids=["box", "oblique", "disc", "two_components", "line", "column", "empty"],
)
def test_axes_are_those_of_the_published_code(mask, published):
    assert tuple(axes_of(mask)) == pytest.approx(published, abs=1e-12)


def test_a_mask_full_of_holes_needs_no_table_of_all_pairs():
    y, x = np.ogrid[:90, :90]
    sieve = ((y % 3 != 1) | (x % 3 != 1))[None]  # 3,700 border voxels
    assert tuple(axes_of(sieve)) == pytest.approx((89 * math.sqrt(2), 89 * math.sqrt(2)))


def test_scores_of_cases_and_of_all():
    lesion, moved, longer = (boxes(((1, 5 + dy, 5), (3, 4, 9 + dx))) for dy, dx in ((0, 0), (1, 0), (0, 6)))
    cases = [of_case(lesion, prediction, SPACING_MM) for prediction in (moved, longer, boxes())]
    assert [case["dice"] for case in cases] == pytest.approx([0.75, 2 * 108 / (108 + 180), 0])
    long_axes = math.hypot(8, 3), math.hypot(14, 3)
    error = (long_axes[1] - long_axes[0]) / sum(long_axes)
    assert [case["long_axis_error"] for case in cases] == pytest.approx([0, error, 1])
    assert cases[2]["short_axis_error"] == 1
    overall = over_cases(cases)
    assert overall["dice"] == pytest.approx((0.75 + 0.75 + 0) / 3)
    errors = [sum(case[f"{axis}_axis_error"] for case in cases) / 3 for axis in ("long", "short")]
    assert overall["score_without_consistency"] == pytest.approx(0.8 * 0.5 + 0.05 * (2 - sum(errors)))


def test_a_case_without_any_lesion_has_dice_0():
    case = of_case(boxes(), boxes(), SPACING_MM)
    assert (case["dice"], case["long_axis_error"], case["short_axis_error"]) == (0, 0, 0)
