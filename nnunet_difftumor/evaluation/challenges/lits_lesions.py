"""Which lesions LiTS counts as detected: its own rule, as `detect_lesions` of its scoring program applies it.

Lesions are connected components of 6 neighbours, numbered in the order in which they are met in the array (x, y, z).
True lesions with the same main finding are one group, and so are the findings that lie mainly on one group. Numbers of
lesions enter the rule, so that they have to be the same here.

Source: github.com/PatrickChrist/lits-challenge-scoring, program/helpers/calc_metric.py.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.measures.masks import box_of

# 400 MB; LiTS has at most some hundred lesions in a scan.
_MOST_PAIRS = 50_000_000


@dataclass(frozen=True)
class LesionGroups:
    """True lesions and findings that belong together.

    Attributes:
        true_labels, found_labels: (x, y, z), 0 outside, else the number of the lesion, in a box around all of them.
        true_count, found_count: numbers of lesions.
        group_of_true: (true_count + 1,), the group of each true lesion, named for the one with the smallest number.
        group_of_found: (found_count + 1,), the group that each finding lies on most; 0: on none.
    """

    true_labels: np.ndarray
    found_labels: np.ndarray
    true_count: int
    found_count: int
    group_of_true: np.ndarray
    group_of_found: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, found: np.ndarray) -> "LesionGroups":
        """Of two masks, boolean (x, y, z).

        Raises:
            InputError: there are too many lesions for a table of all pairs.
        """
        box = box_of(truth | found)
        true_labels, true_count = ndimage.label(truth[box])
        found_labels, found_count = ndimage.label(found[box])
        if true_count * max(true_count, found_count) > _MOST_PAIRS:
            raise InputError(
                f"has {true_count} true and {found_count} predicted lesions, expected at most {_MOST_PAIRS} pairs; are "
                "the label maps noise?"
            )
        common = _common_voxels(true_labels, found_labels, true_count, found_count)
        common[0], common[:, 0] = 0, 0
        # Of equal overlaps the one with the smaller number counts.
        main_finding = common.argmax(axis=1)
        group_of_true = np.arange(true_count + 1)
        for finding in np.unique(main_finding[main_finding > 0]):
            members = np.flatnonzero(main_finding == finding)
            group_of_true[members] = members[0]
        by_group = np.zeros_like(common)
        np.add.at(by_group, group_of_true, common)
        return cls(true_labels, found_labels, true_count, found_count, group_of_true, by_group.argmax(axis=0))

    def detected(self, min_overlap: float) -> tuple[int, list[int]]:
        """Lesions that count as detected.

        Args:
            min_overlap: what the overlap must exceed, 0 to 1.

        Returns:
            How many are detected: a group counts once if it is, and is taken off with all its true lesions if it is
            not, so that the number can be below 0. And the names of the groups that are detected.
        """
        true, found = self.group_of_true[self.true_labels], self.group_of_found[self.found_labels]
        common = _common_voxels(true, found, self.true_count, self.true_count)
        true_voxels, found_voxels = common.sum(axis=1), common.sum(axis=0)
        first_findings: dict[int, int] = {}
        for finding, group in enumerate(self.group_of_found.tolist()):
            if group:
                first_findings.setdefault(group, finding)
        detected, count = set(first_findings), len(first_findings)
        for group, finding in first_findings.items():
            # The program looks for the findings of the group under the number of the first one, where those of the
            # group of that number are, if it is still there. This is the union only if both numbers are the same.
            union = true_voxels[group]
            if finding in detected:
                union = union + found_voxels[finding] - common[group, finding]
            if common[group, group] / union <= min_overlap:
                detected.remove(group)
                count -= int(np.count_nonzero(self.group_of_true == group))
        return count, sorted(detected)

    def masks_of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The true lesions of a group and its findings, boolean (x, y, z)."""
        return self.group_of_true[self.true_labels] == group, self.group_of_found[self.found_labels] == group


def _common_voxels(first: np.ndarray, second: np.ndarray, first_count: int, second_count: int) -> np.ndarray:
    """Voxels by both numbers, int64 (first_count + 1, second_count + 1)."""
    shape = first_count + 1, second_count + 1
    pairs = first.ravel().astype(np.int64) * shape[1] + second.ravel()
    return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
