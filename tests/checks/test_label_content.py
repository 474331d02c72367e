"""Tumors that lie apart from their organ: known distances on a grid finer than the one that is looked at."""

import numpy as np
import pytest

from nnunet_difftumor.checks.label_content import label_findings

SPACING_MM = (1.0, 0.6, 0.6)


def findings(*lesions: tuple[int, int, int]) -> list[str]:
    """What is said of an organ of 20 x 36 x 36 mm with lesions of one voxel each."""
    labels = np.zeros((90, 160, 160), np.uint8)
    labels[:20, :60, :60] = 1
    for place in lesions:
        labels[place] = 2
    counts = {value: int((labels == value).sum()) for value in (0, 1, 2)}
    found = label_findings("case", labels, SPACING_MM, counts=counts, organs={"liver": (1,)}, tumors={"liver": (2,)})
    return [f"{finding.kind}: {finding.seen}" for finding in found]


@pytest.mark.parametrize("lesion", [(10, 30, 30), (10, 70, 30), (31, 31, 31), (10, 30, 79)])
def test_a_lesion_in_the_organ_or_within_15_mm_is_sound(lesion):
    assert findings(lesion) == []


@pytest.mark.parametrize("lesion", [(10, 100, 31), (10, 101, 31), (10, 102, 31)])
def test_the_smallest_lesion_is_found_wherever_it_lies(lesion):
    (found,) = findings(lesion)
    assert found in [f"far-tumor: 1 tumors lie apart from the liver, up to {mm} mm away" for mm in (24, 25, 26, 27)]


def test_lesions_are_counted_one_by_one():
    (found,) = findings((10, 30, 30), (80, 31, 31), (10, 110, 110), (5, 5, 150))
    assert found.startswith("far-tumor: 3 tumors lie apart from the liver, up to 6")
