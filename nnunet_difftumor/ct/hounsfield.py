"""Whether values are HU, judged by the fat, air and bone of the whole scan and by the median of each organ.

Extremes say little: padding, metal and noise reach any value, and a smooth scan of an organ has few.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.label_names import is_lesion_name

# Below this is padding: -2000, -2048, -3024 and others stand for places outside of the scanner's circle.
_LOWEST_TISSUE_HU = -1500
# Where fat is seen, in all scans; a peak farther away is that of other values.
FAT_HU, FAT_TOLERANCE_HU = -105.0, 35.0
_WHAT_HU_ARE = "CT in HU has fat near -100, water at 0 and air near -1000"
# Where the median of a healthy or diseased organ lies, with or without contrast agent, by a word in its name. Values
# that lack their intercept lie 1024 too high, with it twice 1024 too low. Organs that hold gas or contrast agent have
# wide limits.
_MEDIAN_LIMITS_HU = {
    r"lung|pulmonary_lobe": (-1050, -200),
    r"trachea|bronch|airway|sinus": (-1100, 300),
    r"colon|bowel|intestine|rectum|stomach|esophagus|oesophagus|duodenum": (-1050, 700),
    r"bladder|urin|ureter": (-150, 3100),
    r"liver|hepat": (-50, 300),
    r"spleen": (-50, 300),
    r"kidney|renal": (-50, 400),
    r"pancrea": (-120, 250),
    r"adrenal|prostate|uterus|ovar|muscle": (-120, 300),
}
_ANY_ORGAN_HU = (-1100, 800)
# Offsets that scanners and programs use, for the advice.
_OFFSETS = (1024, 1000, 8192, 32768)
# Of the voxels of a scan that are not padding, at least so many are fat, muscle and organs.
_SOME_TISSUE = 0.05
_ENOUGH_VOXELS = 4_000_000


def check_hu(hu: np.ndarray, path: Path) -> None:
    """Refuses what cannot be HU, by the whole scan. Crops without air, any padding, window or phase must pass.

    Args:
        hu: (z, y, x).
        path: of the scan, for messages.

    Raises:
        InputError: saying what is seen.
    """
    low, high = float(hu.min()), float(hu.max())
    seen = f"{path}: the values run from {low:g} to {high:g}"
    hu = _sample(hu)
    if high - low < 100:
        raise InputError(f"{seen}, less than 100 HU apart; normalized or constant images are not CT in HU: give the CT")
    if low < -32768 or high > 32767:
        raise InputError(f"{seen}; CT in HU lies within -32768 to 32767: is this another modality?")
    inside = np.count_nonzero(hu > _LOWEST_TISSUE_HU)
    below_0 = np.count_nonzero((hu > _LOWEST_TISSUE_HU) & (hu < 0))
    padding = f", {100 * (1 - inside / hu.size):.2g} % of them padding below {_LOWEST_TISSUE_HU}"
    seen += padding if inside < hu.size else ""
    if below_0 < 0.001 * inside:
        # Noise in an organ is above 0; air, or grey values of the background, are 0 and a little more.
        bright, dark = (np.count_nonzero(where) for where in (hu > 600, (hu >= 0) & (hu < 10)))
        if bright > 0.05 * inside or dark > 0.001 * inside:
            none = "no voxel" if not below_0 else f"only {100 * below_0 / inside:.2g} % of the voxels"
            raise InputError(
                f"{seen}; {_WHAT_HU_ARE}, but {none} here is below 0: give HU, not grey values from 0 to 255, nor "
                "stored values that lack their intercept (often 1024 too much)"
            )
    tissue = np.count_nonzero((hu > -200) & (hu < 400))
    if tissue < 0.01 * max(inside, 1):
        raise InputError(
            f"{seen}, but {100 * tissue / max(inside, 1):.2g} % of the voxels are soft tissue (-200 to 400 HU); "
            "expected at least 1 %: check slope and intercept, which may be missing or applied twice"
        )


def check_organs_hu(
    hu: np.ndarray, labels: np.ndarray, organs: Mapping[str, Collection[int]], *, where: str | Path
) -> None:
    """Refuses a scan in which the median of an organ cannot be that organ's. Lesions are left out.

    Args:
        hu: (z, y, x), HU, not cut to a window.
        labels: integers (z, y, x).
        organs: values by name; organs that are not there are left out.
        where: the scan, for messages.

    Raises:
        InputError: naming organ, median, limits and what is likely wrong.
    """
    for name, median in organ_medians_hu(hu, labels, organs).items():
        if is_lesion_name(name):
            continue
        low, high = limits_of(name)
        if not low <= median <= high:
            seen = f"{where}: {name} median {median:.0f} HU; expected {low} to {high}"
            raise InputError(f"{seen}; {_likely_wrong(median, low, high, hu)}")


def organ_medians_hu(hu: np.ndarray, labels: np.ndarray, organs: Mapping[str, Collection[int]]) -> dict[str, float]:
    """Median of each organ by name, those left out that are not there; arguments as in `check_organs_hu`."""
    inside = {name: hu[np.isin(labels, list(values))] for name, values in organs.items()}
    return {name: float(np.median(values)) for name, values in inside.items() if values.size}


def _likely_wrong(median: float, low: float, high: float, hu: np.ndarray) -> str:
    """An offset that would put the organ right, if the body is no less off than the organ; else the mask is."""
    hu = _sample(hu)
    inside = np.count_nonzero(hu > _LOWEST_TISSUE_HU)
    for offset in _OFFSETS:
        tissue = np.count_nonzero(np.abs(hu - offset) < 300) / inside
        if low <= median - offset <= high and tissue > _SOME_TISSUE:
            return f"the file lacks its intercept: subtract {offset} from every voxel"
    tissue = np.count_nonzero(np.abs(hu) < 300) / inside
    for offset in _OFFSETS:
        if low <= median + offset <= high and tissue < _SOME_TISSUE:
            return f"the intercept was applied twice: add {offset} to every voxel"
    return "is the mask that of this organ in this scan, and are these HU?"


def _sample(hu: np.ndarray) -> np.ndarray:
    """Evenly spread voxels, enough for shares: the cost does not grow with the scan."""
    step = max(1, round((hu.size / _ENOUGH_VOXELS) ** (1 / 3)))
    return hu[::step, ::step, ::step]


def limits_of(organ: str) -> tuple[int, int]:
    """Least and greatest median in HU of an organ, by its name."""
    for words, limits in _MEDIAN_LIMITS_HU.items():
        if re.search(words, organ.lower()):
            return limits
    return _ANY_ORGAN_HU
