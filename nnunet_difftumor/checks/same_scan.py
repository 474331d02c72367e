"""Whether two scans are one, also cropped or resampled: places that stand out, and what is around them.

A fingerprint is a list of places where the scan differs most from its surroundings, with the HU at 27 points around
each. Two scans are one if many of their places look alike and lie in the same arrangement.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter
from scipy.spatial import cKDTree

from nnunet_difftumor.checks.coarse import GRID_MM

_MOST_PLACES = 400
_STANDS_OUT_HU = 12.0
# In coarse voxels: from the border of the scan, and between the points around a place.
_MARGIN, _STEP = 5, 3.0
_POINTS = np.array(list(product((-1, 0, 1), repeat=3))) * _STEP
# Places look alike if their points differ by less, root mean square.
_ALIKE_HU = 12.0
_APART_MM = 5.0
# One scan: share of the places of the one that has fewer, and number. Measured: docs/checks.md.
_LEAST_SHARE, _LEAST_COMMON = 0.2, 12


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Of a scan.

    Attributes:
        places_mm: float32 (n, 3) along the patient's axes, from any origin.
        around_hu: float32 (n, 27).
    """

    places_mm: np.ndarray
    around_hu: np.ndarray

    def to_json(self) -> dict[str, Any]:
        return {"places_mm": self.places_mm.round(1).tolist(), "around_hu": self.around_hu.round().astype(int).tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Fingerprint":
        places, around = content["places_mm"], content["around_hu"]
        return cls(np.array(places, np.float32).reshape(-1, 3), np.array(around, np.float32).reshape(-1, len(_POINTS)))


def fingerprint(hu: np.ndarray) -> Fingerprint:
    """The fingerprint of a scan on the grid of `coarse_hu`."""
    smooth = gaussian_filter(hu, 1.5)
    contrast = smooth - gaussian_filter(hu, 2.6)
    size = np.abs(contrast)
    peaks = (maximum_filter(size, 3) == size) & (size > _STANDS_OUT_HU)
    inner = np.zeros_like(peaks)
    inner[(slice(_MARGIN, -_MARGIN),) * 3] = True
    places = np.argwhere(peaks & inner)
    order = np.argsort(-size[tuple(places.T)], kind="stable")[:_MOST_PLACES]
    places = places[order]
    exact = places + _within_voxel(contrast, places)
    points = (exact[:, None] + _POINTS).reshape(-1, 3)
    around = map_coordinates(smooth, points.T, order=1, mode="nearest").reshape(-1, len(_POINTS))
    return Fingerprint((exact * GRID_MM).astype(np.float32), around.astype(np.float32))


def are_one(first: Fingerprint, second: Fingerprint) -> bool:
    """Whether two fingerprints are of one scan."""
    fewer = min(len(first.places_mm), len(second.places_mm))
    return common_places(first, second) >= max(_LEAST_COMMON, _LEAST_SHARE * fewer)


def common_places(first: Fingerprint, second: Fingerprint) -> int:
    """How many places look alike and lie in the same arrangement."""
    a, b = first.around_hu, second.around_hu
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    one, other = np.nonzero(squares < _ALIKE_HU**2 * len(_POINTS))
    if len(one) < _LEAST_COMMON:
        return len(one)
    moves = first.places_mm[one] - second.places_mm[other]
    return int(cKDTree(moves).query_ball_point(moves, _APART_MM, return_length=True).max())


def _within_voxel(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Where the extremum lies between voxels, by a parabola along each axis."""
    offsets = np.zeros(places.shape)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        before, here, after = (values[tuple((places + k * step).T)] for k in (-1, 0, 1))
        bend = before - 2 * here + after
        bent = np.abs(bend) > 1e-6
        offsets[bent, axis] = np.clip(0.5 * (before - after)[bent] / bend[bent], -0.5, 0.5)
    return offsets
