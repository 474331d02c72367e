"""Mass effect: the tissue around a tumor gives way (Hu et al., CVPR 2023, equation 5: local scaling warping)."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates

from nnunet_difftumor.synthesis.spec import SeedStream, TumorSpec
from nnunet_difftumor.synthesis.volume import Box, along, axes_mm


def displaced(hu: np.ndarray, spec: TumorSpec, *, box: Box, spacing_mm: Sequence[float]) -> np.ndarray:
    """The scan as the tumor's growth leaves it, float32 (z, y, x).

    What stands at distance r from the centre came from (1 - (1 - r / radius)^2 I) r, so tissue moves outwards, most of
    all near the tumor, and not at all from `mass_effect_radius_mm` on. In the paper the tumor itself is warped with
    the scan; here its shape is what the spec says, and the tissue that it takes the place of moves.

    Args:
        hu: float32 (z, y, x) of the box.
        spec: the tumor.
        box: region of the grid; holds the whole ball of that radius as far as it is inside the grid.
        spacing_mm: voxel size, (z, y, x).

    Returns:
        A new array, or the given one if the spec has no mass effect.
    """
    if not _moves(spec) or hu.size == 0:
        return hu
    source, moved = _sources(spec, box, spacing_mm)
    # Not cubic, which would take ten times as long as everything else.
    result = map_coordinates(hu, source, order=1, mode="nearest", output=np.float32)
    if spec.noise_sd_hu > 0:
        # Interpolation averages the noise of neighbours: what it takes away is put back.
        kept = np.float32(1)
        for where, correlation in zip(source, spec.noise_correlation, strict=True):
            part = where - np.floor(where)
            kept = kept * (1 - 2 * part * (1 - part) * np.float32(1 - correlation))
        rng = spec.generator(SeedStream.NOISE_OF_MASS_EFFECT)
        lost = np.sqrt(np.maximum(1 - kept, 0))
        result += lost * np.float32(spec.noise_sd_hu) * rng.standard_normal(hu.shape, dtype=np.float32)
    return np.where(moved, result, hu)


def displaced_labels(labels: np.ndarray, spec: TumorSpec, *, box: Box, spacing_mm: Sequence[float]) -> np.ndarray:
    """The label map as `displaced` leaves the scan; each voxel has the label of the one nearest to its source.

    The box may be any part of the ball around the centre that holds the centre.
    """
    if not _moves(spec) or labels.size == 0:
        return labels
    source, _ = _sources(spec, box, spacing_mm)
    index = [
        np.clip(np.rint(where, out=where), 0, size - 1).astype(np.intp)
        for where, size in zip(source, labels.shape, strict=True)
    ]
    return labels[tuple(index)]


def _moves(spec: TumorSpec) -> bool:
    return spec.mass_effect > 0 and spec.mass_effect_radius_mm > 0


def _sources(spec: TumorSpec, box: Box, spacing_mm: Sequence[float]) -> tuple[list[np.ndarray], np.ndarray]:
    """Where each voxel of the box came from, three float32 arrays (z, y, x) of indices in the box, and which moved."""
    offsets = [
        along(i, axis - np.float32(centre))
        for i, (axis, centre) in enumerate(zip(axes_mm(box, spacing_mm), spec.centre_mm, strict=True))
    ]
    share = np.sqrt(offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2) / np.float32(spec.mass_effect_radius_mm)
    moved = share < 1
    # How far the source is from where it is seen, relative to the distance from the centre.
    pull = np.square(np.maximum(1 - share, 0)) * np.float32(spec.mass_effect)
    source = []
    for i, (offset, size) in enumerate(zip(offsets, spacing_mm, strict=True)):
        index = along(i, np.arange(moved.shape[i], dtype=np.float32))
        source.append(index - pull * (offset / np.float32(size)))
    return source, moved
