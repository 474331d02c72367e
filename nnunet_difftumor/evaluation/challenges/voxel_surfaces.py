"""Distances between surfaces made of voxels, as LiTS measures them.

A mask's surface is every voxel with a neighbour outside, of 18; each counts the same, whatever the voxel's shape.
DeepMind's surface-distance, which the other measures take, weighs elements of surface by their area.

Source: Heimann et al., IEEE Transactions on Medical Imaging 28 (2009), section on measures; MedPy's class `Surface`, of
which github.com/PatrickChrist/lits-challenge-scoring has a copy (program/helpers/surface.py).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from nnunet_difftumor.evaluation.measures.masks import box_of

_NEIGHBOURS = ndimage.generate_binary_structure(3, 2)


def surface_errors(first: np.ndarray, second: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Average, root mean square and maximum of the distances from each surface voxel to the other surface.

    Args:
        first, second: boolean, three-dimensional, both with voxels.
        spacing_mm: voxel size along the same axes.

    Returns:
        `assd_mm`, `rmsd_mm` and `mssd_mm`.
    """
    box = box_of(first | second)
    points = [_surface(mask[box]) * np.asarray(spacing_mm) for mask in (first, second)]
    one_way, other_way = (cKDTree(to).query(start)[0] for start, to in (points, points[::-1]))
    distances_mm = np.concatenate((one_way, other_way))
    return {
        "assd_mm": float(distances_mm.mean()),
        "rmsd_mm": float(np.sqrt(np.square(distances_mm).mean())),
        "mssd_mm": float(distances_mm.max()),
    }


def _surface(mask: np.ndarray) -> np.ndarray:
    """Indices of its voxels, (n, 3); beyond the array is outside."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask, _NEIGHBOURS))
