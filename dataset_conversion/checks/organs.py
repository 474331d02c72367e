"""Whether a mask can be that of its organ: volume, and one tissue within it. (Its median in HU: `ct.hounsfield`.)"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.errors import InputError

RANGE_HU = 100.0
# More than this times the usual volume is no organ of that name, ill or not.
_MOST_TIMES = 3


@dataclass(frozen=True)
class PlausibleOrgan:
    """What is usual of an adult's organ.

    Attributes:
        volume_ml: least and greatest usual volume, both sides together. A scan may show a part of it, so that less is
            a note and no error.
        share: of the voxels within 100 HU of the median, at least; 0 for organs with gas or contrast agent in them.
            Of a true liver mask at least 0.98, of one that is flipped along any axis at most 0.84 (three CTs, with and
            without contrast and tumors); kidneys with contrast agent 0.89, flipped 0.5 to 0.9.
    """

    volume_ml: tuple[float, float]
    share: float = 0.0


PLAUSIBLE_ORGANS = {
    "liver": PlausibleOrgan((600, 3000), 0.9),
    "spleen": PlausibleOrgan((50, 900), 0.9),
    "kidney": PlausibleOrgan((80, 600), 0.6),
    "pancreas": PlausibleOrgan((15, 180), 0.6),
    "gallbladder": PlausibleOrgan((3, 150), 0.6),
    "adrenal_gland": PlausibleOrgan((2, 30), 0.6),
    "prostate": PlausibleOrgan((8, 200), 0.6),
    "stomach": PlausibleOrgan((50, 2000)),
    "colon": PlausibleOrgan((100, 3000)),
    "duodenum": PlausibleOrgan((15, 250)),
    "esophagus": PlausibleOrgan((5, 120)),
    "bladder": PlausibleOrgan((10, 1200)),
    "lung": PlausibleOrgan((1000, 9000)),
}


def check_organs(
    hu: np.ndarray,
    labels: np.ndarray,
    organs: Mapping[str, Collection[int]],
    *,
    spacing_mm: Sequence[float],
    where: object,
) -> str:
    """Looks at every organ that is in `PLAUSIBLE_ORGANS`.

    Args:
        hu: (z, y, x), HU.
        labels: integers (z, y, x).
        organs: values by name.
        spacing_mm: voxel size (z, y, x).
        where: the case, for messages.

    Returns:
        A note on volumes that are unusual; empty if there are none.

    Raises:
        InputError: an organ is far too large, or covers several tissues: a flipped mask does, or one of another scan.
    """
    notes = []
    for name, values in organs.items():
        usual = PLAUSIBLE_ORGANS.get(name)
        inside = hu[np.isin(labels, list(values))] if usual else np.empty(0)
        if usual is None or not inside.size:
            continue
        volume_ml = inside.size * float(np.prod(spacing_mm)) / 1000
        low, high = usual.volume_ml
        seen = f"{name} of {volume_ml:.3g} ml, usual are {low:g} to {high:g}"
        if volume_ml > _MOST_TIMES * high:
            raise InputError(f"{where}: {seen}; is it the mask of this organ, and the voxel size right?")
        if not low <= volume_ml <= high:
            notes.append(f"{seen}: a part of it, a child's, or another organ's mask?")
        check_one_tissue(inside, name, share=usual.share, where=where)
    return "; ".join(notes)


def check_one_tissue(inside_hu: np.ndarray, organ: str, *, share: float, where: object) -> None:
    """Refuses a mask that covers several tissues.

    Args:
        inside_hu: HU of the mask's voxels.
        organ: its name.
        share: that must lie within 100 HU of the median.
        where: the case or the mask, for messages.

    Raises:
        InputError: less does.
    """
    median = float(np.median(inside_hu))
    seen = float(np.mean(np.abs(inside_hu - median) <= RANGE_HU))
    if seen < share:
        raise InputError(
            f"{where}: only {100 * seen:.0f} % of the {organ} lie within {RANGE_HU:.0f} HU of its median "
            f"({median:.0f}), expected {100 * share:.0f} %; the mask seems to be flipped or of another scan"
        )
