"""The tumor's shape: a rough ellipsoid under an elastic displacement, as a function of position in mm.

Hu et al., CVPR 2023, section 3.1: an ellipsoid, elastically deformed (sigma_e), with a blurred edge (sigma_c); ours is
the fine relief, without which tumors are smoother than real ones. Because the shape is a function and not a voxel mask,
it has the same form on every grid, and thick slices get their partial volume.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation

from nnunet_difftumor.synthesis.separable import along_axes
from nnunet_difftumor.synthesis.spec import SeedStream, TumorSpec
from nnunet_difftumor.synthesis.volume import along

# Displacements are limited to this many standard deviations, so that the shape has a known greatest extent.
_DISPLACEMENT_LIMIT = 2.0
# The same for the relief, whose standard deviation is relative to the semi-axes.
_ROUGHNESS_LIMIT = 2.5
# Control points of the displacement on either side of the centre, one tumor radius apart; beyond them there is none.
_DISPLACEMENT_POINTS = 6
# Standard deviation of a cubic B-spline whose control points have that of 1, in 3D.
_BSPLINE_SD = (151 / 315) ** 1.5


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
        parts = [along(i, axis * np.float32(matrix[i, component] / semi_axis)) for i, axis in enumerate(relative)]
        coordinate = parts[0] + parts[1] + parts[2]
        if displacement is not None:
            coordinate += displacement[component] * np.float32(1 / semi_axis)
        squared = coordinate * coordinate if squared is None else squared + coordinate * coordinate
    level = np.sqrt(squared, out=squared)
    if spec.roughness > 0:
        level += _relief(spec, relative)
    return level


def rotation_matrix(spec: TumorSpec) -> np.ndarray:
    """(3, 3) float64; columns are the ellipsoid's axes in the array's frame (z, y, x)."""
    return Rotation.from_quat(spec.rotation, scalar_first=True).as_matrix()


def radius_mm(spec: TumorSpec) -> float:
    """Of the ball with the ellipsoid's volume."""
    return float(np.prod(spec.semi_axes_mm)) ** (1 / 3)


def reach_of_displacement_mm(spec: TumorSpec) -> float:
    return _DISPLACEMENT_LIMIT * np.sqrt(3) * spec.deformation_mm


def growth_by_roughness(spec: TumorSpec) -> float:
    """By how much the relief can at most enlarge the ellipsoid."""
    return 1 + _ROUGHNESS_LIMIT * spec.roughness


def _reach_of_shape_mm(spec: TumorSpec) -> float:
    """No point of the shape is farther from the centre, in mm."""
    return max(spec.semi_axes_mm) * growth_by_roughness(spec) + reach_of_displacement_mm(spec)


def _displacement(spec: TumorSpec, relative: Sequence[np.ndarray]) -> np.ndarray:
    """Smooth random displacement in the ellipsoid's frame, float32 (3, z, y, x), in mm.

    Control points stand one tumor radius apart (three across the tumor, as many as the public code of Hu et al. uses).
    """
    rng = spec.generator(SeedStream.DISPLACEMENT)
    field = _smooth_noise(relative, rng, grain_mm=radius_mm(spec), half=_DISPLACEMENT_POINTS, components=3)
    return _limited(field, spec.deformation_mm, _DISPLACEMENT_LIMIT)


def _relief(spec: TumorSpec, relative: Sequence[np.ndarray]) -> np.ndarray:
    """What the surface's roughness adds to the level function, float32 (z, y, x)."""
    half = int(np.ceil(_reach_of_shape_mm(spec) / spec.roughness_grain_mm)) + 2
    rng = spec.generator(SeedStream.RELIEF)
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
