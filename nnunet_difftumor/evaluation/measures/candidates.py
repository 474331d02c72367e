"""Lesion candidates with a confidence, from the probabilities of a network: for FROC and average precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np

from nnunet_difftumor.evaluation.measures.matching import CONNECTIVITY, Components

# Voxels below it belong to no candidate: a lesion that a network holds for less likely is not reported by it.
THRESHOLD = 0.1


@dataclass(frozen=True)
class Candidates:
    """Connected components (26 neighbours) of the voxels at or above the threshold.

    Attributes:
        labels: (z, y, x), 0 outside, else 1 to count.
        confidences: of each its highest probability, rounded to six digits; index 0 is candidate 1.
    """

    labels: np.ndarray
    confidences: np.ndarray

    @classmethod
    def none(cls) -> "Candidates":
        return cls(np.zeros((0, 0, 0), np.uint32), np.zeros(0))

    def within(self, box: tuple[slice, ...]) -> "Candidates":
        """The same in a box that holds all of them."""
        return Candidates(self.labels[box], self.confidences)

    def components(self, spacing_mm: Sequence[float]) -> Components:
        """For `match`."""
        return Components.numbered(self.labels, len(self.confidences), spacing_mm)


def candidates_of(probability: np.ndarray) -> Candidates:
    """Finds the candidates.

    Args:
        probability: float (z, y, x), 0 to 1.
    """
    labels, count = cc3d.connected_components(probability >= THRESHOLD, connectivity=CONNECTIVITY, return_N=True)
    confidences = np.zeros(count + 1, np.float64)
    inside = labels > 0
    np.maximum.at(confidences, labels[inside], probability[inside])
    return Candidates(labels, np.round(confidences[1:], 6))
