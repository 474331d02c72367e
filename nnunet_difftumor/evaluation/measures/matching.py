"""Which predicted lesions belong to which true ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.optimize import linear_sum_assignment

from nnunet_difftumor.errors import InputError

CONNECTIVITY = 26
RULES = {
    "any-overlap": "a true lesion is detected if at least one of its voxels is predicted; a predicted one is false if "
    "none of its voxels is a true lesion's",
    "iou": "two lesions match if their intersection over union is at least the stated one, also several with one",
    "one-to-one": "as iou, but a lesion has at most one partner: the pairs are chosen whose IoU sum up to most",
}


@dataclass(frozen=True)
class MatchingRule:
    """When a predicted lesion counts for a true one.

    Attributes:
        name: one of `RULES`.
        min_iou: least intersection over union of a pair, 0 to 1; unused by any-overlap. With 0 a pair must have a voxel
            in common.
    """

    name: str = "any-overlap"
    min_iou: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise InputError(f"`match` is {self.name!r}, expected one of {', '.join(RULES)}")
        if not 0 <= self.min_iou <= 1:
            raise InputError(f"`min_iou` is {self.min_iou:g}, expected 0 to 1")
        if self.name == "any-overlap" and self.min_iou:
            raise InputError(f"`min_iou` is {self.min_iou:g}, which any-overlap has no use for; choose another `match`")


@dataclass(frozen=True)
class Components:
    """Connected components (26 neighbours) of a mask.

    Attributes:
        labels: (z, y, x), 0 outside, else 1 to count.
        voxels: of each, without the outside; index 0 is component 1.
        diameters_mm: of the balls with their volumes.
    """

    labels: np.ndarray
    voxels: np.ndarray
    diameters_mm: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, spacing_mm: Sequence[float]) -> "Components":
        labels, count = cc3d.connected_components(mask, connectivity=CONNECTIVITY, return_N=True)
        return cls.numbered(labels, count, spacing_mm)

    @classmethod
    def numbered(cls, labels: np.ndarray, count: int, spacing_mm: Sequence[float]) -> "Components":
        """Of components that have their numbers."""
        voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        return cls(labels, voxels, np.cbrt(6 * voxels * math.prod(spacing_mm) / math.pi))


def match(truth: Components, found: Components, rule: MatchingRule) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a true and a predicted component that belong together.

    Returns:
        overlap: int64 (true, predicted), voxels in common.
        matched: boolean, of the same shape.
    """
    overlap = np.zeros((len(truth.voxels), len(found.voxels)), np.int64)
    both = (truth.labels > 0) & (found.labels > 0)
    pairs, counts = np.unique(np.stack((truth.labels[both], found.labels[both])), axis=1, return_counts=True)
    overlap[pairs[0] - 1, pairs[1] - 1] = counts
    if rule.name == "any-overlap":
        return overlap, overlap > 0
    iou = overlap / np.maximum(truth.voxels[:, None] + found.voxels[None] - overlap, 1)
    possible = (overlap > 0) & (iou >= rule.min_iou)
    if rule.name == "iou":
        return overlap, possible
    rows, columns = linear_sum_assignment(np.where(possible, iou, 0.0), maximize=True)
    matched = np.zeros_like(possible)
    matched[rows, columns] = possible[rows, columns]
    return overlap, matched
