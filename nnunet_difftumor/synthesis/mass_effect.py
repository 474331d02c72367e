"""Mass effect: the tissue around a tumor gives way (Hu et al., CVPR 2023, equation 5: local scaling warping)."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates

from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, axes_mm


def displaced(
    hu: np.ndarray, labels: np.ndarray, spec: TumorSpec, *, box: Box, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Scan and label map as the tumor's growth leaves them.

    What stands at distance r from the centre came from (1 - (1 - r / radius)^2 I) r, so tissue moves outwards, most of
    all near the tumor, and not at all from `mass_effect_radius_mm` on. In the paper the tumor itself is warped with
    the scan; here its shape is what the spec says, and the tissue that it takes the place of moves.

    Args:
        hu: float32 (z, y, x) of the box.
        labels: integer (z, y, x) of the box.
        spec: the tumor.
        box: region of the grid; holds the whole ball of that radius as far as it is inside the grid.
        spacing_mm: voxel size, (z, y, x).

    Returns:
        Two new arrays, or the given ones if the spec has no mass effect.
    """
    if spec.mass_effect == 0 or spec.mass_effect_radius_mm == 0 or hu.size == 0:
        return hu, labels
    offsets = [
        (axis - np.float32(centre)).reshape([-1 if j == i else 1 for j in range(3)])
        for i, (axis, centre) in enumerate(zip(axes_mm(box, spacing_mm), spec.centre_mm, strict=True))
    ]
    distance = np.sqrt(sum(offset**2 for offset in offsets)) / np.float32(spec.mass_effect_radius_mm)
    moved = distance < 1
    # How far the source is from where it is seen, relative to the distance from the centre.
    pull = np.square(1 - distance[moved]) * np.float32(spec.mass_effect)
    index = np.nonzero(moved)
    source = np.stack(
        [
            where - pull * np.broadcast_to(offset, moved.shape)[moved] / np.float32(size)
            for where, offset, size in zip(index, offsets, spacing_mm, strict=True)
        ]
    )
    hu, labels = hu.copy(), labels.copy()
    hu[moved] = map_coordinates(hu, source, order=3, mode="nearest", output=np.float32)
    nearest = tuple(
        np.clip(np.rint(where), 0, size - 1).astype(int) for where, size in zip(source, hu.shape, strict=True)
    )
    labels[moved] = labels[nearest]
    return hu, labels
