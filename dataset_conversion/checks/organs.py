"""Whether a mask can be that of its organ: volume, and one tissue within it. (Its median in HU: `ct.hounsfield`.)"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.errors import InputError

RANGE_HU = 100.0
# A mask that is right has more voxels within 50 HU of the median than any of its mirror images (by a share of 0.22 in
# livers of four CTs, 0.04 in spleens), one that is flipped fewer than the image that is right.
_NARROW_HU, _FLIPPED_GAIN = 50.0, 0.05
_FEWEST_VOXELS, _ENOUGH_VOXELS = 1000, 200_000
_ASYMMETRIC = ("liver", "spleen")
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
        mask = np.isin(labels, list(values))
        if usual is None or not mask.any():
            continue
        inside = hu[mask]
        volume_ml = inside.size * float(np.prod(spacing_mm)) / 1000
        low, high = usual.volume_ml
        seen = f"{name} of {volume_ml:.1f} ml, usual are {low:g} to {high:g}"
        if volume_ml > _MOST_TIMES * high:
            raise InputError(f"{where}: {seen}; is it the mask of this organ, and the voxel size right?")
        if not low <= volume_ml <= high:
            notes.append(f"{seen}: a part of it, a child's, or another organ's mask?")
        check_one_tissue(hu, mask, name, where=where)
    return "; ".join(notes)


def check_one_tissue(hu: np.ndarray, mask: np.ndarray, organ: str, *, where: object) -> None:
    """Refuses a mask that covers several tissues, or that would cover fewer if it were flipped.

    Args:
        hu: (z, y, x), HU.
        mask: boolean (z, y, x), not empty.
        organ: a name in `PLAUSIBLE_ORGANS`.
        where: the case or the mask, for messages.

    Raises:
        InputError: it does.
    """
    places = np.argwhere(mask)
    places = places[:: max(1, len(places) // _ENOUGH_VOXELS)]
    share, expected = _share(hu, places, RANGE_HU), PLAUSIBLE_ORGANS[organ].share
    if share < expected:
        raise InputError(
            f"{where}: only {100 * share:.0f} % of the {organ} lie within {RANGE_HU:.0f} HU of its median, expected "
            f"{100 * expected:.0f} %; the mask seems to be flipped or of another scan"
        )
    if organ not in _ASYMMETRIC or len(places) < _FEWEST_VOXELS:
        return
    share = _share(hu, places, _NARROW_HU)
    for axes in (axes for n in (1, 2, 3) for axes in itertools.combinations(range(3), n)):
        flipped = places.copy()
        for axis in axes:
            flipped[:, axis] = hu.shape[axis] - 1 - places[:, axis]
        if _share(hu, flipped, _NARROW_HU) > share + _FLIPPED_GAIN:
            names = ", ".join("zyx"[axis] for axis in axes)
            raise InputError(
                f"{where}: the mask of the {organ} seems to be flipped: it fits the scan better flipped along {names} "
                f"(more of it within {_NARROW_HU:.0f} HU of the median)"
            )


def _share(hu: np.ndarray, places: np.ndarray, range_hu: float) -> float:
    inside = hu[tuple(places.T)]
    return float(np.mean(np.abs(inside - np.median(inside)) <= range_hu))
