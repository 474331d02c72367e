"""A bent tube in fat: a wall of 3 to 4 mm around a lumen with air above and fluid below."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.volume import ArrayVolume

ORGAN = Organ("colon", (1,), 2, (2,))
WALL_HU, FLUID_HU, GAS_HU, FAT_HU = 80.0, 10.0, -950.0, -100.0


class Colon(NamedTuple):
    """A scan with the mask of the whole organ, or of its wall alone; and what is what, boolean (z, y, x)."""

    volume: ArrayVolume
    wall: np.ndarray
    lumen: np.ndarray


@lru_cache(maxsize=8)
def colon(
    *,
    wall_alone: bool = False,
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5),
    noise_hu: float = 12.0,
    thinner: float = 0.0,
    seed: int = 0,
) -> Colon:
    """A tube of 32 mm along half a circle, in a block of fat that leaves room for large tumors. Not to be changed.

    Args:
        wall_alone: whether the label map has the wall and not the lumen.
        spacing_mm: voxel size.
        noise_hu: standard deviation of the noise.
        thinner: by so many mm the wall is thinner.
        seed: of the noise.
    """
    size_mm = np.array([126.0, 150.0, 200.0])
    shape = tuple(int(n) for n in np.ceil(size_mm / spacing_mm))
    positions = np.stack(
        np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing_mm, strict=True)), indexing="ij"), -1
    )
    angle = np.linspace(0, np.pi, 200)
    axis_mm = np.stack([63 + 6 * np.sin(3 * angle), 45 + 60 * np.sin(angle), 100 - 60 * np.cos(angle)], 1)
    distance, nearest = cKDTree(axis_mm).query(positions, workers=1)
    # Between 3 and 4 mm, on and on along the tube.
    wall_mm = 3.5 + 0.5 * np.sin(20 * angle[nearest]) - thinner
    whole, lumen = distance < 16, distance < 16 - wall_mm
    level = axis_mm[nearest][..., 1] - 3  # the patient lies on the back: y leads to it
    hu = np.select([lumen & (positions[..., 1] < level), lumen, whole], [GAS_HU, FLUID_HU, WALL_HU], FAT_HU)
    noise = np.random.default_rng(seed).normal(0, noise_hu, shape)
    hu = gaussian_filter(hu, 0.4) + noise
    labels = np.where(whole & ~lumen if wall_alone else whole, 1, 0).astype(np.int16)
    return Colon(ArrayVolume(hu.astype(np.float32), labels, spacing_mm), whole & ~lumen, lumen)
