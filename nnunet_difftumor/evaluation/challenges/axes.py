"""Long and short axis of a lesion from its mask, as ULS23 measures them, in voxels.

In each axial slice only the largest component counts (4 neighbours). The long axis is the longest line between two
border voxels of a slice, over all slices; the short axis the longest one in that slice that is perpendicular to it, to
within the smallest whole number of degrees that any line reaches.

Source: github.com/DIAGNijmegen/ULS23, evaluation/misc.py.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Axes(NamedTuple):
    """Lengths between the centers of voxels, in voxels; 0 if no slice has two."""

    long: float
    short: float


def axes_of(mask: np.ndarray) -> Axes:
    """Both axes of a mask, boolean (z, y, x)."""
    longest, ends, border = 0, (0, 0), np.zeros((0, 2), np.int64)
    for axial in mask[mask.any(axis=(1, 2))]:
        points = _border(axial)
        squared, between = _longest(points)
        if squared > longest:
            longest, ends, border = squared, between, points
    if not longest:
        return Axes(0.0, 0.0)
    return Axes(float(np.sqrt(longest)), _longest_across(border, border[ends[1]] - border[ends[0]]))


def _border(axial: np.ndarray) -> np.ndarray:
    """Voxels of the largest component with one of 4 neighbours outside it, as indices (n, 2) in the order of rows."""
    labels, count = ndimage.label(axial)
    if count > 1:
        axial = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.argwhere(axial & ~ndimage.binary_erosion(axial))


def _longest(points: np.ndarray) -> tuple[int, tuple[int, int]]:
    """Squared length of the longest line and its ends; of equal ones the first."""
    longest, ends = 0, (0, 0)
    for i in range(len(points) - 1):  # row by row: all pairs at once would not fit for a mask full of holes
        squared = np.square(points[i + 1 :] - points[i]).sum(axis=1)
        farthest = int(squared.argmax())
        if squared[farthest] > longest:
            longest, ends = int(squared[farthest]), (i, i + 1 + farthest)
    return longest, ends


def _longest_across(points: np.ndarray, direction: np.ndarray) -> float:
    """Length of the longest line across a direction."""
    # Squared, by whole degrees away from a right angle.
    longest = np.zeros(91, np.int64)
    for i in range(len(points) - 1):
        lines = points[i + 1 :] - points[i]
        squared = np.square(lines).sum(axis=1)
        cosine = lines @ direction / (np.sqrt(np.square(direction).sum()) * np.sqrt(squared))
        degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        np.maximum.at(longest, np.abs(degrees - 90).astype(np.int64), squared)
    return float(np.sqrt(longest[longest > 0][0]))
