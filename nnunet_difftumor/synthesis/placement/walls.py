"""Where tumors of a hollow organ fit: in its wall, and out of it into fat."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.shape.field import radius_mm
from nnunet_difftumor.synthesis.shape.room import room_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Volume, clipped_box

# Of the places that are looked at nearby, so many are examined on the whole shape.
_LOOKED_AT, _EXAMINED = 64, 8
# Nearby is within this distance, beyond the wall's thickness.
_NEARBY_MM = 4.0
# The centre lies outside of the wall's middle by this share of the radius: a tumor that is larger than its wall grows
# outwards, since the lumen is not its room.
_OUTWARDS = (0.1, 0.8)
# Of a disc with the tumor's diameter and the wall's thickness, so much is in the wall at least: it is joined to it.
_LEAST_ROOT = 0.2
# Of what is nearby, so much is fat at least.
_LEAST_OUTSIDE = 0.1
_MOST_ROOTED = 0.2


def grown_from_wall(drawn: TumorSpec, wall_mm: float) -> TumorSpec:
    """What a preset drew, as a tumor of a wall: into fat if it is larger, and without mass effect, as all that do."""
    return replace(
        drawn, wall_mm=wall_mm, exophytic=True, growth_radius_mm=0.0, mass_effect=0.0, mass_effect_radius_mm=0.0
    )


def least_in_wall(spec: TumorSpec, diameter_mm: float) -> float:
    """The share of a tumor of this diameter that lies in the wall at least."""
    disc, ball = np.pi / 4 * diameter_mm**2 * spec.wall_mm, np.pi / 6 * diameter_mm**3
    return float(min(_MOST_ROOTED, _LEAST_ROOT * disc / ball))


def places_at_wall(
    spec: TumorSpec, statistics: OrganStatistics, volume: Volume, *, organ: Organ, rng: np.random.Generator
) -> Iterator[tuple[float, float, float]]:
    """Centres in mm beside places of the wall that have fat outside; in the wall for a tumor that stays in it.

    Args:
        spec: the tumor.
        statistics: of the organ.
        volume: the scan.
        organ: which labels are the organ.
        rng: source of everything random.
    """
    spacing = np.asarray(volume.spacing_mm)
    cells = np.flatnonzero(statistics.organ_cells)
    cells = rng.choice(cells, min(_LOOKED_AT, len(cells)), replace=False)
    index = np.stack(np.unravel_index(cells, statistics.organ_cells.shape), 1)
    index = statistics.cell_origin + (index + rng.uniform(0, 1, index.shape)) * statistics.cell_voxels - 0.5
    outwards, found = rng.uniform(*_OUTWARDS, len(cells)), 0
    for place, share in zip(index, outwards, strict=True):
        centre = place * spacing
        if spec.exophytic:
            direction = _way_out(place, spec, volume, organ=organ)
            if direction is None:
                continue
            centre = centre + direction * share * radius_mm(spec)
        yield tuple(float(value) for value in centre)
        found += 1
        if found == _EXAMINED:
            return


def _way_out(place: np.ndarray, spec: TumorSpec, volume: Volume, *, organ: Organ) -> np.ndarray | None:
    """Unit vector (z, y, x) from the organ to the fat beside a place (an index); None if there is hardly any."""
    spacing = np.asarray(volume.spacing_mm)
    reach = np.ceil((spec.wall_mm + _NEARBY_MM) / spacing)
    box = clipped_box(np.floor(place - reach), np.ceil(place + reach) + 1, volume.shape)
    hu, labels = volume.hu(box), volume.labels(box)
    if 0 in hu.shape:
        return None
    solid = organ.whole(labels)
    outside = room_of(hu, labels, spec, organ=organ, spacing_mm=volume.spacing_mm) & ~solid
    if np.count_nonzero(outside) < _LEAST_OUTSIDE * outside.size or not solid.any():
        return None
    away = (np.argwhere(outside).mean(0) - np.argwhere(solid).mean(0)) * spacing
    length = float(np.linalg.norm(away))
    return away / length if length > 0 else None
