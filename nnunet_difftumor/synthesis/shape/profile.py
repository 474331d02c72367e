"""How much of each voxel is tumor: the shape with its blurred edge, cut to where there is room, as one component."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cc3d
import edt
import numpy as np
from scipy.special import ndtr

from nnunet_difftumor.synthesis.shape.field import radial_field
from nnunet_difftumor.synthesis.spec import Triple, TumorSpec
from nnunet_difftumor.synthesis.volume import Box, axes_mm

# Beyond this many standard deviations of the edge's blur alpha is exactly 0, by a first-order estimate of the distance
# to the surface; and beyond _GREATEST_GAP by the true distance to the mask, which strong curvature makes a larger one.
_EDGE_CUT, _GREATEST_GAP = 2.5, 3.0


def alpha_in(spec: TumorSpec, box: Box, spacing_mm: Sequence[float], organ: np.ndarray) -> np.ndarray:
    """How much of each voxel is tumor.

    The profile across the edge is that of a half-space blurred by a Gaussian of `edge_blur_mm` and by the voxel itself
    (variance spacing^2 / 12 along each axis: partial volume). It is cut to the organ and to one component, scaled so
    that its peak is 1, and ends where the gap to the mask is more than 3 `edge_blur_mm`.

    Args:
        spec: the tumor.
        box: region of the grid, as from `region_of`.
        spacing_mm: voxel size, (z, y, x).
        organ: boolean (z, y, x) of the box: where the tumor may be.

    Returns:
        float32 (z, y, x) in [0, 1]; all 0 where nothing of the tumor is inside the organ. The tumor's mask is
        {alpha >= 0.5}.
    """
    alpha, mask = _profile(spec, box, spacing_mm, organ)
    alpha = alpha.copy()
    if mask.any():
        # The gap between voxels as boxes, not as points: across thick slices it is 0 for neighbours.
        apart = ~_with_neighbours(mask)
        squared_mm = edt.edtsq(apart.view(np.uint8), anisotropy=[float(size) for size in spacing_mm])
        alpha[squared_mm > (_GREATEST_GAP * spec.edge_blur_mm) ** 2] = 0
    return alpha


def mask_in(spec: TumorSpec, box: Box, spacing_mm: Sequence[float], organ: np.ndarray) -> np.ndarray:
    """The tumor's mask, {`alpha_in` >= 0.5}, boolean (z, y, x), read-only, at less cost."""
    return _profile(spec, box, spacing_mm, organ)[1]


def _profile(
    spec: TumorSpec, box: Box, spacing_mm: Sequence[float], organ: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Alpha but for the last cut, and the mask; both read-only."""
    if organ.size == 0:
        return np.zeros(organ.shape, np.float32), np.zeros(organ.shape, bool)
    # What does not change the shape may differ between the tumor that was placed and the one that is rendered.
    shape_only = replace(
        spec, background_hu=0.0, contrast_hu=0.0, texture_sd_hu=0.0, noise_sd_hu=0.0, core_contrast_hu=0.0
    )
    start, spacing = tuple(part.start for part in box), tuple(float(size) for size in spacing_mm)
    return _profile_at(shape_only, start, spacing, organ.shape, np.packbits(organ).tobytes())


# A scene is placed first, and rendered then: as many as a scene has tumors, and one more.
@lru_cache(maxsize=4)
def _profile_at(
    spec: TumorSpec, start: tuple[int, ...], spacing_mm: Triple, shape: tuple[int, ...], packed_organ: bytes
) -> tuple[np.ndarray, np.ndarray]:
    organ = np.unpackbits(np.frombuffer(packed_organ, np.uint8), count=int(np.prod(shape))).reshape(shape).view(bool)
    box = tuple(slice(first, first + size) for first, size in zip(start, shape, strict=True))
    level = radial_field(spec, axes_mm(box, spacing_mm))
    steps = [_difference(level, axis) for axis in range(3)]
    slope = sum(step * step * np.float32(1 / size**2) for step, size in zip(steps, spacing_mm, strict=True))
    across_voxel = sum(step * step for step in steps) * np.float32(1 / 12)
    signed = np.subtract(1, level, out=level)
    blur = np.sqrt(slope * np.float32(spec.edge_blur_mm**2) + across_voxel) + np.float32(1e-6)
    reach = np.sqrt(slope) * np.float32(_EDGE_CUT * spec.edge_blur_mm)
    depth = signed / blur
    alpha = np.zeros_like(depth)
    near = (depth > -_EDGE_CUT) & (signed > -reach) & organ
    alpha[near] = ndtr(depth[near])
    mask = _keep_one_component(alpha)
    alpha.flags.writeable = mask.flags.writeable = False
    return alpha, mask


def _keep_one_component(alpha: np.ndarray) -> np.ndarray:
    """Scales alpha, in place, to a peak of 1 and removes what is not in the largest component of its mask.

    Returns:
        The mask, {alpha >= 0.5}: one component, or empty if all of alpha is 0.
    """
    while True:
        peak = alpha.max()
        if peak <= 0:
            return np.zeros(alpha.shape, bool)
        alpha /= peak
        mask = alpha >= 0.5
        components, count = cc3d.connected_components(mask.astype(np.uint8), connectivity=6, return_N=True)
        if count == 1:
            return mask
        # Without the others the peak may be less, and what lies above half of it more: look again.
        alpha[mask & (components != 1 + int(np.bincount(components.ravel())[1:].argmax()))] = 0


def _difference(field: np.ndarray, axis: int) -> np.ndarray:
    """Central differences per voxel, one-sided at the border; 0 along an axis of one voxel."""
    if field.shape[axis] < 2:
        return np.zeros_like(field)
    result = np.empty_like(field)
    view, target = np.moveaxis(field, axis, 0), np.moveaxis(result, axis, 0)
    np.subtract(view[2:], view[:-2], out=target[1:-1])
    target[1:-1] *= 0.5
    target[0], target[-1] = view[1] - view[0], view[-1] - view[-2]
    return result


def _with_neighbours(mask: np.ndarray) -> np.ndarray:
    """The mask and all voxels that touch it by a face, an edge or a corner."""
    for axis in range(3):
        grown = mask.copy()
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
        target[1:] |= source[:-1]
        target[:-1] |= source[1:]
        mask = grown
    return mask
