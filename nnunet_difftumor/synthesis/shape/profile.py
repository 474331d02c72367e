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
from nnunet_difftumor.synthesis.volume import Box, axes_mm, bounding_box

# Beyond this many standard deviations of the edge's blur alpha is exactly 0, by a first-order estimate of the distance
# to the surface; and beyond _GREATEST_GAP by the true distance to the mask, which strong curvature makes a larger one.
_EDGE_CUT, _GREATEST_GAP = 2.5, 3.0
# Parts of an exophytic tumor that are thinner than a ball of at least this radius stick out by at most this much.
_LEAST_BALL_MM, _SPIKE_MM = 2.5, 2.0
# Of voxels, so that rounding does not decide about those that lie right at a limit.
_TIE = 1e-6


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
    # The gap between voxels as boxes, not as points: across thick slices it is 0 for neighbours.
    return alpha * _within(_with_neighbours(mask), _GREATEST_GAP * spec.edge_blur_mm, spacing_mm)


def mask_in(spec: TumorSpec, box: Box, spacing_mm: Sequence[float], organ: np.ndarray) -> np.ndarray:
    """The tumor's mask, {`alpha_in` >= 0.5}, boolean (z, y, x), read-only, at less cost."""
    return _profile(spec, box, spacing_mm, organ)[1]


def squared_slopes(level: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Of a level function, float32 (z, y, x): how fast it grows per mm, squared, and its variance within a voxel."""
    steps = [_difference(level, axis) for axis in range(3)]
    slope = sum(step * step * np.float32(1 / size**2) for step, size in zip(steps, spacing_mm, strict=True))
    return slope, sum(step * step for step in steps) * np.float32(1 / 12)


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
    slope, across_voxel = squared_slopes(level, spacing_mm)
    signed = np.subtract(1, level, out=level)
    blur = np.sqrt(slope * np.float32(spec.edge_blur_mm**2) + across_voxel) + np.float32(1e-6)
    reach = np.sqrt(slope) * np.float32(_EDGE_CUT * spec.edge_blur_mm)
    depth = signed / blur
    alpha = np.zeros_like(depth)
    near = (depth > -_EDGE_CUT) & (signed > -reach) & organ
    alpha[near] = ndtr(depth[near])
    mask = _keep_one_component(alpha)
    if spec.exophytic and spec.growth_radius_mm > 0:
        # More than a voxel, or a row of single voxels would be thick enough.
        ball_mm = max(spec.growth_radius_mm / 2, _LEAST_BALL_MM, 1.01 * min(spacing_mm))
        alpha[_spikes(mask, ball_mm, spacing_mm)] = 0
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


def _spikes(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """What of a mask (z, y, x) is more than `_SPIKE_MM` away from all that a ball of that radius reaches in it."""
    box = bounding_box(mask)
    spikes = np.zeros_like(mask)
    if box is not None:
        spacing = [float(size) for size in spacing_mm]
        part = np.ascontiguousarray(mask[box])
        centres = edt.edt(part, anisotropy=spacing, black_border=True) > radius_mm
        if centres.any():
            spikes[box] = part & (edt.edt(~centres, anisotropy=spacing) > radius_mm + _SPIKE_MM)
    return spikes


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


def _within(mask: np.ndarray, reach_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Voxels whose distance to a mask (z, y, x) is at most `reach_mm`.

    For so few voxels several times quicker than the distances themselves.
    """
    reach = [int(reach_mm / size + _TIE) for size in spacing_mm]
    # A border of its own size keeps what is shifted along the memory out of the next row.
    padded = np.pad(mask, [(n, n) for n in reach])
    along_x = [padded.ravel()]
    for shift in range(1, reach[2] + 1):
        along_x.append(along_x[-1].copy())
        _add_shifted(along_x[-1], along_x[0], shift)
    found = np.zeros_like(along_x[0])
    for z in range(reach[0] + 1):
        for y in range(-reach[1], reach[1] + 1):
            left = reach_mm**2 - (z * spacing_mm[0]) ** 2 - (y * spacing_mm[1]) ** 2
            if left >= -_TIE:
                row = along_x[int(max(left, 0) ** 0.5 / spacing_mm[2] + _TIE)]
                _add_shifted(found, row, (z * padded.shape[1] + y) * padded.shape[2])
    return found.reshape(padded.shape)[tuple(slice(n, n + size) for n, size in zip(reach, mask.shape, strict=True))]


def _add_shifted(target: np.ndarray, source: np.ndarray, shift: int) -> None:
    """target |= source, shifted by so many places to both sides; boolean (n,)."""
    shift = abs(shift)
    target[shift:] |= source[: len(source) - shift]
    target[: len(target) - shift] |= source[shift:]


def _with_neighbours(mask: np.ndarray) -> np.ndarray:
    """The mask and all voxels that touch it by a face, an edge or a corner."""
    for axis in range(3):
        grown = mask.copy()
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
        target[1:] |= source[:-1]
        target[:-1] |= source[1:]
        mask = grown
    return mask
