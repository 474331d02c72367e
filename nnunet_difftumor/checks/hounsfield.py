"""Whether a scan's numbers are HU: the level of labelled organs, and that of fat, by the limits of `ct.hounsfield`."""

from collections.abc import Collection

import numpy as np
from scipy.ndimage import gaussian_filter1d

from nnunet_difftumor.checks.coarse import RANGE_HU
from nnunet_difftumor.checks.finding import ERROR, WARNING, Finding
from nnunet_difftumor.ct.hounsfield import FAT_HU, FAT_TOLERANCE_HU, limits_of

_KIND = "not-hu"
_BIN_HU = 5.0
# Where fat is looked for: it is to be seen where all HU are 200 too low, too.
FAT_RANGE_HU = (-400.0, RANGE_HU[1])
# A peak: share of the voxels in homogeneous tissue, highest nearby, and so many times what is aside of it.
_LEAST_SHARE, _NEAR_HU = 0.006, 45.0
_STANDS_OUT, _ASIDE_HU = 2.5, 60.0


def fat_hu(hu: np.ndarray, *, below_hu: float) -> float | None:
    """Where the histogram of homogeneous tissue has its peak of fat; None if there is too little.

    Args:
        hu: as `coarse_hu` gives it for `FAT_RANGE_HU`.
        below_hu: of all that could be fat.
    """
    low, high = FAT_RANGE_HU
    steep = np.sqrt(sum(np.square(np.gradient(hu, axis=axis)) for axis in range(3)))
    values = hu[(steep < 15) & (hu > low + 10) & (hu < high - 10)]
    if len(values) < 2000:
        return None
    counts, edges = np.histogram(values, np.arange(low, high, _BIN_HU))
    share = gaussian_filter1d(counts.astype(float), 1.5) / len(values)
    aside, near = int(_ASIDE_HU / _BIN_HU), int(_NEAR_HU / _BIN_HU)
    for at in range(aside, int((min(below_hu, high - _ASIDE_HU) - low) / _BIN_HU)):
        highest = share[at] >= _LEAST_SHARE and share[at] == share[max(at - near, 0) : at + near + 1].max()
        if highest and share[at] > _STANDS_OUT * max(share[at - aside], share[at + aside]):
            return float(edges[at] + _BIN_HU / 2)
    return None


def has_fat_in_place(hu: np.ndarray, organs_hu: Collection[float]) -> bool:
    """Whether fat is where it is in HU, and none of the organs' medians is there.

    Args:
        hu: as `coarse_hu` gives it for `FAT_RANGE_HU`.
        organs_hu: median of each organ.
    """
    found = fat_hu(hu, below_hu=0.0)
    return (
        found is not None
        and abs(found - FAT_HU) <= FAT_TOLERANCE_HU
        and all(abs(median_hu - found) > _ASIDE_HU for median_hu in organs_hu)
    )


def wrong_hu(case: str, organs_hu: dict[str, float], hu: np.ndarray) -> list[Finding]:
    """Findings about a case's intensities.

    Args:
        case: name.
        organs_hu: median of each organ, by name, in the scan itself.
        hu: as `coarse_hu` gives it for `FAT_RANGE_HU`.
    """
    do = "give the CT in HU: slope and intercept applied once"
    for organ, median_hu in organs_hu.items():
        low, high = limits_of(organ)
        if not low <= median_hu <= high:
            seen = f"{organ} has a median of {median_hu:.0f}, expected {low} to {high} HU"
            return [Finding(_KIND, case, ERROR, seen, do)]
    found = fat_hu(hu, below_hu=max(organs_hu.values()) - 100 if organs_hu else 0.0)
    if found is not None and abs(found - FAT_HU) > FAT_TOLERANCE_HU:
        seen = f"fat is at {found:.0f}, expected about {FAT_HU:.0f} HU: all values may be {found - FAT_HU:+.0f} HU off"
        return [Finding(_KIND, case, WARNING, seen, do)]
    return []
