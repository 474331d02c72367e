"""Whether an organ's labels lie on the organ: HU inside them, where they are and where they are moved to.

On the organ, intensities in its mask vary little; as soon as a part of the mask lies on other tissue they vary more.
The standard deviation in the mask is computed for every displacement at once, as correlations; it has to be least where
the labels are. Measured on four real CTs and ten phantoms, all organs: docs/checks.md.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from nnunet_difftumor.checks.coarse import GRID_MM
from nnunet_difftumor.checks.finding import ERROR, WARNING, Finding

_KIND = "misplaced-labels"
# Less than this many coarse voxels say nothing.
_LEAST_VOXELS = 60
_REACH_MM = 40.0
# Coarse voxels within which a mirrored mask may fit: it need not be mirrored at the middle of the grid.
_NEAR = 4
# Of a real displacement: least length, and how much less intensities vary there.
_LEAST_SHIFT_MM, _LEAST_GAIN = 8.0, 1.25
# Soft tissue, with and without contrast agent; what lies beyond is fat, air and bone.
_TISSUE_HU = (-50.0, 320.0)
_RANGE_HU = (-150.0, 250.0)
# Share of the organ's inside that is no soft tissue: sound labels have up to 0.3 %.
_FOREIGN, _FOREIGN_IN_LARGE = 0.03, 0.015
# Standard deviation in HU in organs that are large and homogeneous: sound ones have up to 30.
_LARGE_ML, _LARGE_SD_HU = 500.0, 45.0
# How labels are turned back (z, y, x), and how much less intensities vary if they were turned: in sound organs they
# always vary more, by a factor of 1.15 at least.
_TURNS = [
    Rotation.from_rotvec(degrees * np.divide(axis, np.linalg.norm(axis)), degrees=True)
    for degrees in (12, -12, 25, -25)
    for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1))
]
_LEAST_TURN_GAIN, _CERTAIN_TURN_GAIN = 1.1, 1.25
# Voxels of an organ that are turned.
_SOME_VOXELS = 4000
# A mirrored label that fits better than the label itself.
_MIRRORED_GAIN = 0.6


@dataclass(frozen=True)
class Fit:
    """How an organ's mask fits the scan.

    Attributes:
        sd_hu: of intensities in the mask.
        best_sd_hu: where the mask would fit best, of the places that one comes to from where it is.
        shift_mm: from there to where it is: superior, anterior, right.
        turn_gain: how much less they vary in the mask turned about its middle, the way in which it fits best.
        mirrored_sd_hu: in the mask mirrored left to right, at its best place nearby; infinite if that is not asked for.
        foreign: share of the inside that is no soft tissue.
        volume_ml: of the mask.
    """

    sd_hu: float
    best_sd_hu: float
    shift_mm: tuple[float, float, float]
    turn_gain: float
    mirrored_sd_hu: float
    foreign: float
    volume_ml: float


class FitMeasure:
    """Measures how masks fit a scan, any number of masks.

    Args:
        hu: as `coarse_hu` gives it.
    """

    def __init__(self, hu: np.ndarray) -> None:
        self.hu, self._reach = hu, int(_REACH_MM / GRID_MM)
        self._shape = [next_fast_len(n + 2 * self._reach, real=True) for n in hu.shape]
        self._inside = tuple(slice(0, n) for n in hu.shape)
        # Fat lies around the scan.
        padded = np.full(self._shape, _RANGE_HU[0], np.float32)
        padded[self._inside] = np.clip(hu, *_RANGE_HU)
        self._transforms = rfftn(padded), rfftn(padded**2)

    def fit(self, mask: np.ndarray) -> Fit | None:
        """The fit of a mask; None if it is too small to say anything.

        Args:
            mask: boolean, on the scan's grid.
        """
        if np.count_nonzero(mask) < _LEAST_VOXELS:
            return None
        reach, near = self._reach, slice(self._reach - _NEAR, self._reach + _NEAR + 1)
        sd_hu = self._sd_by_displacement(mask)
        place = _descended(sd_hu, reach)
        inside = self.hu[binary_erosion(mask, border_value=1)]
        inside = inside if len(inside) >= _LEAST_VOXELS // 2 else self.hu[mask]
        low, high = _TISSUE_HU
        foreign = float(np.mean((inside < low) | (inside > high)))
        up, front, right = (float(reach - at) * GRID_MM for at in place)
        # Whatever lies on soft tissue is not asked for its mirror image.
        mirrored = self._sd_by_displacement(mask[:, :, ::-1])[near, near, near].min() if foreign >= _FOREIGN else np.inf
        return Fit(
            sd_hu=float(sd_hu[reach, reach, reach]),
            best_sd_hu=float(sd_hu[place]),
            shift_mm=(up, front, right),
            turn_gain=self._turn_gain(mask),
            mirrored_sd_hu=float(mirrored),
            foreign=foreign,
            volume_ml=float(np.count_nonzero(mask) * GRID_MM**3 / 1000),
        )

    def _sd_by_displacement(self, mask: np.ndarray) -> np.ndarray:
        """Standard deviation in the mask, moved by -reach to reach voxels along each axis."""
        places = np.zeros(self._shape, np.float32)
        places[self._inside] = mask
        where, count = np.conj(rfftn(places)), np.count_nonzero(mask)
        mean, square = (irfftn(values * where, s=self._shape) / count for values in self._transforms)
        around = np.arange(-self._reach, self._reach + 1)
        index = np.ix_(around, around, around)
        return np.sqrt(np.maximum(square[index] - mean[index] ** 2, 0))

    def _turn_gain(self, mask: np.ndarray) -> float:
        places = np.argwhere(mask)
        middle = places.mean(0)
        places = places[:: max(1, len(places) // _SOME_VOXELS)]
        least_sd_hu = np.inf
        for turn in _TURNS:
            turned = np.rint(turn.apply(places - middle) + middle).astype(int)
            there = turned[((turned >= 0) & (turned < self.hu.shape)).all(axis=1)]
            if len(there) > 0.9 * len(places):
                least_sd_hu = min(least_sd_hu, self._sd(there))
        return self._sd(places) / max(least_sd_hu, 1.0)

    def _sd(self, places: np.ndarray) -> float:
        return float(np.clip(self.hu[tuple(places.T)], *_RANGE_HU).std())


def misplaced_labels(case: str, organ: str, fit: Fit) -> list[Finding]:
    """At most one finding: mirrored, moved, turned, or not this scan's.

    Args:
        case: name.
        organ: name of the label.
        fit: of its mask.
    """
    do = "look at the case in a viewer; give it the labels that belong to the scan"
    if fit.foreign >= _FOREIGN and fit.mirrored_sd_hu < _MIRRORED_GAIN * fit.sd_hu:
        seen = (
            f"{organ}: labels look mirrored left to right (HU vary by {fit.sd_hu:.0f} in them, by "
            f"{fit.mirrored_sd_hu:.0f} in their mirror image)"
        )
        return [Finding(_KIND, case, ERROR, seen, do)]
    length_mm = float(np.linalg.norm(fit.shift_mm))
    if length_mm >= _LEAST_SHIFT_MM and fit.sd_hu >= _LEAST_GAIN * max(fit.best_sd_hu, 1.0):
        seen = (
            f"{organ}: labels look shifted by {_directions(fit.shift_mm)} (HU vary by {fit.sd_hu:.0f} in them, by "
            f"{fit.best_sd_hu:.0f} without the shift)"
        )
        return [Finding(_KIND, case, ERROR, seen, do)]
    if fit.turn_gain >= _LEAST_TURN_GAIN:
        seen = (
            f"{organ}: labels look turned, or of another scan (HU vary by {fit.sd_hu:.0f} in them, by "
            f"{fit.sd_hu / fit.turn_gain:.0f} when turned back)"
        )
        return [Finding(_KIND, case, ERROR if fit.turn_gain >= _CERTAIN_TURN_GAIN else WARNING, seen, do)]
    large = fit.volume_ml >= _LARGE_ML
    if fit.foreign >= _FOREIGN:
        seen = f"{organ}: {fit.foreign:.0%} of its inside are fat, air or bone; the labels may be of another scan"
        return [Finding(_KIND, case, ERROR, seen, do)]
    if large and (fit.foreign >= _FOREIGN_IN_LARGE or fit.sd_hu >= _LARGE_SD_HU):
        seen = (
            f"{organ}: {fit.foreign:.1%} of its inside are fat, air or bone, and HU vary by {fit.sd_hu:.0f}; the "
            "labels may be of another scan, or turned"
        )
        return [Finding(_KIND, case, WARNING, seen, do)]
    return []


def _descended(values: np.ndarray, start: int) -> tuple[int, ...]:
    """The place that is reached from the middle by going to the least value within two voxels, again and again."""
    place = np.array([start] * 3)
    while True:
        low = np.maximum(place - 2, 0)
        window = values[tuple(slice(a, b + 3) for a, b in zip(low, place, strict=True))]
        found = np.array(np.unravel_index(window.argmin(), window.shape)) + low
        if (found == place).all():
            return tuple(int(at) for at in place)
        place = found


def _directions(shift_mm: tuple[float, float, float]) -> str:
    names = (("down", "up"), ("back", "forward"), ("to the left", "to the right"))
    parts = [f"{abs(mm):.0f} mm {name[mm > 0]}" for mm, name in zip(shift_mm, names, strict=True) if abs(mm) >= GRID_MM]
    return ", ".join(parts)
