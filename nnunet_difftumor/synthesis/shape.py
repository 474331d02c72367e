"""The tumor's shape: a rough ellipsoid under an elastic displacement, as a function of position in mm.

Hu et al., CVPR 2023, section 3.1: an ellipsoid, elastically deformed (sigma_e), with a blurred edge (sigma_c); ours is
the fine relief, without which tumors are smoother than real ones. Because the shape is a function and not a voxel mask,
it has the same form on every grid, and thick slices get their partial volume.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import cc3d
import edt
import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation
from scipy.special import ndtr

from nnunet_difftumor.synthesis.separable import along_axes
from nnunet_difftumor.synthesis.spec import Triple, TumorSpec
from nnunet_difftumor.synthesis.volume import Box, axes_mm, clipped_box

# Displacements are limited to this many standard deviations, so that the shape has a known greatest extent.
_DISPLACEMENT_LIMIT = 2.0
# Beyond this many standard deviations of the edge's blur alpha is exactly 0, by a first-order estimate of the distance
# to the surface; and beyond _GREATEST_GAP by the true distance to the mask, which strong curvature makes a larger one.
_EDGE_CUT, _GREATEST_GAP = 2.5, 3.0
# The same for the relief, whose standard deviation is relative to the semi-axes.
_ROUGHNESS_LIMIT = 2.5
# Control points of the displacement on either side of the centre, one tumor radius apart; beyond them there is none.
_DISPLACEMENT_POINTS = 6
# Standard deviation of a cubic B-spline whose control points have that of 1, in 3D.
_BSPLINE_SD = (151 / 315) ** 1.5
_SURVEY_POINTS = 28


def rotation_matrix(spec: TumorSpec) -> np.ndarray:
    """(3, 3) float64; columns are the ellipsoid's axes in the array's frame (z, y, x)."""
    return Rotation.from_quat(spec.rotation, scalar_first=True).as_matrix()


def radial_field(spec: TumorSpec, positions_mm: Sequence[np.ndarray]) -> np.ndarray:
    """The shape's level function: below 1 inside, 1 on the surface, growing outwards.

    Args:
        spec: the tumor.
        positions_mm: three vectors, the positions along z, y and x of a rectangular grid, in the frame of
            `spec.centre_mm`.

    Returns:
        float32 (z, y, x).
    """
    matrix = rotation_matrix(spec)
    relative = [
        np.asarray(axis, np.float32) - np.float32(centre)
        for axis, centre in zip(positions_mm, spec.centre_mm, strict=True)
    ]
    displacement = _displacement(spec, relative) if spec.deformation_mm > 0 else None
    squared = None
    for component, semi_axis in enumerate(spec.semi_axes_mm):
        along = [
            (axis * np.float32(matrix[i, component] / semi_axis)).reshape([-1 if j == i else 1 for j in range(3)])
            for i, axis in enumerate(relative)
        ]
        coordinate = along[0] + along[1] + along[2]
        if displacement is not None:
            coordinate += displacement[component] * np.float32(1 / semi_axis)
        squared = coordinate * coordinate if squared is None else squared + coordinate * coordinate
    level = np.sqrt(squared, out=squared)
    if spec.roughness > 0:
        level += _relief(spec, relative)
    return level


def radius_mm(spec: TumorSpec) -> float:
    """Of the ball with the ellipsoid's volume."""
    return float(np.prod(spec.semi_axes_mm)) ** (1 / 3)


def _displacement(spec: TumorSpec, relative: Sequence[np.ndarray]) -> np.ndarray:
    """Smooth random displacement in the ellipsoid's frame, float32 (3, z, y, x), in mm.

    Control points stand one tumor radius apart (three across the tumor, as many as the public code of Hu et al. uses).
    """
    rng = np.random.default_rng(spec.seed)
    field = _smooth_noise(relative, rng, grain_mm=radius_mm(spec), half=_DISPLACEMENT_POINTS, components=3)
    return _limited(field, spec.deformation_mm, _DISPLACEMENT_LIMIT)


def _relief(spec: TumorSpec, relative: Sequence[np.ndarray]) -> np.ndarray:
    """What the surface's roughness adds to the level function, float32 (z, y, x)."""
    half = int(np.ceil(_reach_of_shape(spec) / spec.roughness_grain_mm)) + 2
    rng = np.random.default_rng((spec.seed, 2))
    field = _smooth_noise(relative, rng, grain_mm=spec.roughness_grain_mm, half=half, components=1)
    return _limited(field, spec.roughness, _ROUGHNESS_LIMIT)[0]


def _smooth_noise(
    relative: Sequence[np.ndarray], rng: np.random.Generator, *, grain_mm: float, half: int, components: int
) -> np.ndarray:
    """Random fields of standard deviation 1, float32 (components, z, y, x): cubic B-splines.

    Centred on the tumor, so that they do not depend on the grid.
    """
    control = rng.standard_normal((components, *[2 * half + 1] * 3), dtype=np.float32)
    control *= np.float32(1 / _BSPLINE_SD)
    weights = [_bspline_weights(axis / np.float32(grain_mm), half) for axis in relative]
    return along_axes(control, weights)


def _limited(field: np.ndarray, sd: float, limit: float) -> np.ndarray:
    """In place: scaled to a standard deviation, and cut off at some of them, so that shapes have a greatest extent."""
    field *= np.float32(sd)
    return np.clip(field, np.float32(-limit * sd), np.float32(limit * sd), out=field)


def _reach_of_displacement(spec: TumorSpec) -> float:
    return _DISPLACEMENT_LIMIT * np.sqrt(3) * spec.deformation_mm


def _growth_by_roughness(spec: TumorSpec) -> float:
    """By how much the relief can at most enlarge the ellipsoid."""
    return 1 + _ROUGHNESS_LIMIT * spec.roughness


def _reach_of_shape(spec: TumorSpec) -> float:
    """No point of the shape is farther from the centre, in mm."""
    return max(spec.semi_axes_mm) * _growth_by_roughness(spec) + _reach_of_displacement(spec)


def _bspline_weights(position: np.ndarray, half: int) -> csr_array:
    """Weights of the control points -half..half, (positions, 2 half + 1) float32, in units of their distance."""
    points = np.floor(position)[:, None] + np.arange(-1, 3, dtype=np.float32)
    distance = np.abs(position[:, None] - points)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clip(min=0) ** 3 / 6
    weights = np.where(distance < 1, near, far) * (np.abs(points) <= half)
    columns = points.clip(-half, half).astype(np.int32) + half
    rows = np.arange(0, 4 * len(position) + 1, 4, dtype=np.int32)
    return csr_array((weights.astype(np.float32).ravel(), columns.ravel(), rows), (len(position), 2 * half + 1))


class Survey(NamedTuple):
    """A whole shape, before any organ cuts it.

    Attributes:
        volume_mm3: of the shape.
        half_extents_mm: (2, 3), of everything that the blurred shape changes: below and above the centre on each axis.
        reach_mm: radius of the ball around the centre that holds everything that the tumor changes.
    """

    volume_mm3: float
    half_extents_mm: np.ndarray
    reach_mm: float


def survey(spec: TumorSpec) -> Survey:
    """Looks at the whole shape on a coarse grid."""
    size = radius_mm(spec)
    unit = _survey(
        # A search tries one shape at many places and in several sizes: what else the spec says makes no difference.
        tuple(round(value / size, 6) for value in spec.semi_axes_mm),
        spec.rotation,
        round(spec.deformation_mm / size, 6),
        spec.roughness,
        round(spec.roughness_grain_mm / size, 6),
        spec.seed,
    )
    blur = 3 * spec.edge_blur_mm
    reach = max(unit.reach_mm * size + blur, spec.mass_effect_radius_mm if spec.mass_effect > 0 else 0.0)
    return Survey(unit.volume_mm3 * size**3, unit.half_extents_mm * size + blur, reach)


@lru_cache(maxsize=64)
def _survey(
    semi_axes: Triple,
    rotation: tuple[float, float, float, float],
    deformation: float,
    roughness: float,
    roughness_grain: float,
    seed: int,
) -> Survey:
    """`survey` of a tumor of radius 1 with a sharp edge at the origin."""
    spec = TumorSpec(
        "", "", (0.0, 0.0, 0.0), semi_axes, rotation, deformation, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, seed,
        roughness=roughness, roughness_grain_mm=roughness_grain,
    )  # fmt: skip
    matrix = rotation_matrix(spec)
    extent = np.sqrt(((matrix * np.asarray(semi_axes)) ** 2).sum(1)) * _growth_by_roughness(spec)
    extent += _reach_of_displacement(spec)
    steps = 2 * extent / (_SURVEY_POINTS - 1)
    axes = [np.linspace(-half, half, _SURVEY_POINTS) for half in extent]
    field = radial_field(spec, axes)
    inside = field <= 1
    bounds = np.empty((2, 3))
    for axis in range(3):
        hit = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        bounds[:, axis] = (-axes[axis][hit[0]], axes[axis][hit[-1]]) if len(hit) else (0, 0)
    # Trilinear crossing of the surface within a coarse cell moves it by less than one step.
    bounds = np.maximum(bounds, 0) + steps
    bounds.flags.writeable = False
    # The smooth share of a cell that is inside counts, not the yes or no of its centre: small errors at 28 points.
    share = ((1 - field) * (_SURVEY_POINTS / 2) + 0.5).clip(0, 1)
    squares = [(axis**2).reshape([-1 if j == i else 1 for j in range(3)]) for i, axis in enumerate(axes)]
    farthest = np.sqrt((squares[0] + squares[1] + squares[2])[inside].max(initial=0))
    return Survey(float(share.sum() * np.prod(steps)), bounds, float(farthest + np.linalg.norm(steps)))


def region_of(
    spec: TumorSpec, shape: Sequence[int], spacing_mm: Sequence[float], *, with_mass_effect: bool = True
) -> Box:
    """The box, cut to the grid, outside of which the tumor changes nothing; or only what it displaces."""
    reach = survey(spec).half_extents_mm
    if with_mass_effect and spec.mass_effect > 0:
        reach = np.maximum(reach, spec.mass_effect_radius_mm)
    centre = np.asarray(spec.centre_mm)
    spacing = np.asarray(spacing_mm)
    lower = np.floor((centre - reach[0]) / spacing).astype(int) - 1
    upper = np.ceil((centre + reach[1]) / spacing).astype(int) + 2
    return clipped_box(lower, upper, shape)


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
