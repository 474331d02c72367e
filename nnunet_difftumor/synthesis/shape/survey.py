"""How large a shape is before any organ cuts it, and the box of the grid that a tumor changes."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nnunet_difftumor.synthesis.shape.field import (
    growth_by_roughness,
    radial_field,
    radius_mm,
    reach_of_displacement_mm,
    rotation_matrix,
)
from nnunet_difftumor.synthesis.spec import Triple, TumorSpec
from nnunet_difftumor.synthesis.volume import Box, along, clipped_box

_SURVEY_POINTS = 28


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


def region_of(
    spec: TumorSpec, shape: Sequence[int], spacing_mm: Sequence[float], *, with_mass_effect: bool = True
) -> Box:
    """The box, cut to the grid, outside of which the tumor changes nothing; or only what it displaces."""
    # What is wall is seen from the organ's outer surface, which is at most that far away.
    reach = survey(spec).half_extents_mm + spec.wall_mm
    if with_mass_effect and spec.mass_effect > 0:
        reach = np.maximum(reach, spec.mass_effect_radius_mm)
    centre = np.asarray(spec.centre_mm)
    spacing = np.asarray(spacing_mm)
    lower = np.floor((centre - reach[0]) / spacing).astype(int) - 1
    upper = np.ceil((centre + reach[1]) / spacing).astype(int) + 2
    return clipped_box(lower, upper, shape)


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
    extent = np.sqrt(((matrix * np.asarray(semi_axes)) ** 2).sum(1)) * growth_by_roughness(spec)
    extent += reach_of_displacement_mm(spec)
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
    squares = [along(i, axis**2) for i, axis in enumerate(axes)]
    farthest = np.sqrt((squares[0] + squares[1] + squares[2])[inside].max(initial=0))
    return Survey(float(share.sum() * np.prod(steps)), bounds, float(farthest + np.linalg.norm(steps)))
