"""Where a tumor fits: draws a spec from a preset and finds it a place, or says why there is none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.ndimage import maximum_filter

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.look.look_alikes import draw_look_alike
from nnunet_difftumor.synthesis.look.preset import EVERY, SIZES, Preset
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.growth import GrowthMap
from nnunet_difftumor.synthesis.placement.walls import grown_from_wall, least_in_wall, places_at_wall
from nnunet_difftumor.synthesis.shape.field import radial_field, radius_mm, rotation_matrix
from nnunet_difftumor.synthesis.shape.mass_effect import displaced_labels
from nnunet_difftumor.synthesis.shape.profile import mask_in
from nnunet_difftumor.synthesis.shape.room import room_of, tissue_of
from nnunet_difftumor.synthesis.shape.survey import region_of, survey
from nnunet_difftumor.synthesis.size_bands import EARLY_SIZES, SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import NoRoom, TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume, axes_mm, box_within, grown_box

# Early tumors keep clear of vessels; larger ones, unless told to, take the place with the least among this many.
_PLACES = 32
_ATTEMPTS, _ANYWHERE = 12, 1
_SHRINK = 0.88
# A shape for which there is no room in any size of its band is replaced by another.
_DRAWS = 3
# At least this share of the tumor's ellipsoid is inside the organ; the rest is cut off by the organ's border.
_INSIDE = ((0.9, 1.0), (0.7, 1.0))
# Of one that grows out of the organ between these; real ones of the kidney lie half outside.
_INSIDE_EXOPHYTIC = ((0.3, 0.7), (0.2, 0.9))
_LEAST_ROOTED = 0.2
# More than a fifth of a tumor that grows out is outside (KiTS23's way to count them), and hardly any of it is cut off:
# beside bowel, muscle and lung there is no place for it, rather than one for a part.
_LEAST_GROWN, _LEAST_UNCUT = 0.2, 0.85
# What no displacement or relief takes away from a tumor, relative to its size.
_MIDDLE = 0.6
# Bone does not give way: no mass effect near it.
_BONE_HU = 300.0
_GAP_MM = 1.0
# A tumor that the organ cuts to less than this part of its band is not made larger to fit the band again.
_LEAST_LEFT = 0.75
# Of the places with the least vessels this many are examined on the scan's own grid.
_EXAMINED, _EXAMINED_GROWING = 4, 6
# A real lesion must be outside the tumor made this much larger.
_LESION_DISTANCE = 1.2


@dataclass(frozen=True)
class Placement:
    """A tumor with a place, and what was found there on the scan's own grid.

    Attributes:
        spec: the tumor.
        diameter_mm: equivalent diameter of its mask.
        vessel_share: share of its mask that is vessel (equation 1 of Hu et al.).
        reach_mm: radius of a ball around the centre that holds everything the tumor changes.
    """

    spec: TumorSpec
    diameter_mm: float
    vessel_share: float
    reach_mm: float


class TumorSampler:
    """Draws tumors for one organ from a preset.

    Args:
        organ: which labels are the organ.
        preset: a name in `PRESETS`, or a preset.
        contrast_hu: interval that replaces the preset's contrast.
        weights: shares of the size classes that replace the preset's mix.
        clear_of_vessels: whether tumors of every size keep clear of vessels, and not only tiny and small ones.
    """

    def __init__(
        self,
        organ: Organ,
        preset: str | Preset = "realistic",
        *,
        contrast_hu: tuple[float, float] | None = None,
        weights: Mapping[str, float] | None = None,
        clear_of_vessels: bool = False,
    ) -> None:
        if isinstance(preset, str):
            if preset not in PRESETS:
                raise InputError(f"preset is {preset!r}, expected one of {', '.join(PRESETS)}")
            preset = PRESETS[preset]
        if contrast_hu is not None:
            preset = replace(preset, contrast_hu=contrast_hu)
        if weights is not None:
            preset = replace(preset, weights=weights, every_size=0.0)
        self.organ = organ
        self.preset = preset
        self._sizes_clear_of_vessels = tuple(SIZE_BANDS_MM) if clear_of_vessels else EARLY_SIZES

    def sample_scene(
        self,
        volume: Volume,
        statistics: OrganStatistics,
        rng: np.random.Generator,
        *,
        size: str = "mix",
        count: int | None = None,
        occupied: Sequence[Placement] = (),
    ) -> tuple[list[Placement], list[NoRoom]]:
        """Draws as many tumors as the preset gives to a scan, none touching another.

        Args:
            volume: the scan.
            statistics: of the organ in that scan.
            rng: source of everything random.
            size: a size class; "mix": one class drawn for the scene, or every one; "every": all of them.
            count: number of tumors instead of the preset's; then every tumor of a "mix" draws its own class.
            occupied: tumors that are already there.
        """
        if size not in SIZES:
            raise InputError(f"size is {size!r}, expected one of {', '.join(SIZES)}")
        placed: list[Placement] = []
        refused: list[NoRoom] = []
        for one in self._sizes_of_scene(size, count, rng):
            result = self.sample(volume, statistics, rng, size=one, occupied=[*occupied, *placed])
            (placed if isinstance(result, Placement) else refused).append(result)
        return placed, refused

    def _sizes_of_scene(self, size: str, count: int | None, rng: np.random.Generator) -> list[str]:
        """The size of each tumor of a scene, "mix" where it is to be drawn with the tumor."""
        if size == "mix" and count is None:
            every = self.preset.every_size > 0 and rng.random() < self.preset.every_size
            size = EVERY if every else self._draw_size(rng)
        # The largest first: small ones still find room between them.
        sizes = [*reversed(self.preset.sizes)] if size == EVERY else [size]
        if count is not None:
            return [sizes[number % len(sizes)] for number in range(count)]
        counts = (int(rng.integers(least, most + 1)) for least, most in (self.preset.sizes[one].count for one in sizes))
        return [one for one, times in zip(sizes, counts, strict=True) for _ in range(times)]

    def sample(
        self,
        volume: Volume,
        statistics: OrganStatistics,
        rng: np.random.Generator,
        *,
        size: str = "mix",
        occupied: Sequence[Placement] = (),
    ) -> Placement | NoRoom:
        """Draws one tumor and finds it a place.

        The search is bounded. A tumor that does not fit is made smaller, within its band of sizes, and then another
        one is drawn, before the search is given up. The last one that finds no fat to grow into may be inside.
        """
        size = self._draw_size(rng) if size == "mix" else size
        growth = cache(lambda: GrowthMap(volume, statistics, self.organ))
        for left in reversed(range(_DRAWS)):
            drawn = self.preset.draw(self.organ.name, size, statistics=statistics, rng=rng)
            found = self._place(
                drawn, volume, statistics, rng=rng, occupied=occupied, growth=growth, inside_too=not left
            )
            if isinstance(found, Placement):
                break
        return found

    def sample_look_alike(
        self,
        volume: Volume,
        statistics: OrganStatistics,
        rng: np.random.Generator,
        *,
        occupied: Sequence[Placement] = (),
    ) -> Placement | NoRoom:
        """Draws a benign look-alike and finds it a place."""
        drawn = draw_look_alike(self.organ.name, statistics=statistics, rng=rng)
        return self._place(drawn, volume, statistics, rng=rng, occupied=occupied)

    def _place(
        self,
        drawn: TumorSpec,
        volume: Volume,
        statistics: OrganStatistics,
        *,
        rng: np.random.Generator,
        occupied: Sequence[Placement],
        growth: Callable[[], GrowthMap] | None = None,
        inside_too: bool = True,
    ) -> Placement | NoRoom:
        # Deformed, the shape must still have the volume drawn.
        wanted = _ball_volume(_nominal_diameter_mm(drawn))
        drawn = scaled(drawn, (wanted / survey(drawn).volume_mm3) ** (1 / 3))
        if statistics.wall_mm:
            drawn = grown_from_wall(drawn, statistics.wall_mm)
        size = drawn.size_class
        reason = "no place with enough room in the organ"
        for spec in (drawn, replace(drawn, exophytic=False)) if drawn.exophytic and inside_too else (drawn,):
            for diameter in _shrinking(_nominal_diameter_mm(spec), SIZE_BANDS_MM[size][0]):
                spec = scaled(spec, diameter / _nominal_diameter_mm(spec))
                places = (
                    self._places(spec, statistics, volume.spacing_mm, rng, occupied, growth)
                    if not statistics.wall_mm
                    else places_at_wall(spec, statistics, volume, organ=self.organ, rng=rng)
                )
                for centre in places:
                    found = self._examine(replace(spec, centre_mm=centre), statistics, volume, occupied)
                    if isinstance(found, Placement):
                        return found
                    reason = found
        return NoRoom(self.organ.name, size, reason)

    def _draw_size(self, rng: np.random.Generator) -> str:
        weights = np.array(list(self.preset.weights.values()), float)
        return list(self.preset.weights)[int(rng.choice(len(weights), p=weights / weights.sum()))]

    def _places(
        self,
        spec: TumorSpec,
        statistics: OrganStatistics,
        spacing_mm: Sequence[float],
        rng: np.random.Generator,
        occupied: Sequence[Placement],
        growth: Callable[[], GrowthMap] | None,
    ) -> Iterator[tuple[float, float, float]]:
        """Centres in mm that look good on the statistics' cells, best first."""
        deep = spec.size_class in EARLY_SIZES and not spec.exophytic
        if deep:
            cells, limit = np.flatnonzero(statistics.free_mm >= max(spec.semi_axes_mm)), _ATTEMPTS
            if not len(cells) and _nominal_diameter_mm(spec) < 1.05 * SIZE_BANDS_MM[spec.size_class][0]:
                # It cannot be smaller; an oblong one may lie along the organ, or along a vessel.
                cells = np.flatnonzero(statistics.free_mm >= radius_mm(spec))
        else:
            cells, limit = np.flatnonzero(statistics.organ_cells), 16 * _PLACES
        if not len(cells):
            return
        cells = rng.choice(cells, min(8 * limit if deep else limit, len(cells)), replace=False)
        index = np.stack(np.unravel_index(cells, statistics.organ_cells.shape), 1)
        index = index + rng.uniform(0, 1, index.shape)
        centres = (statistics.cell_origin + index * statistics.cell_voxels - 0.5) * np.asarray(spacing_mm)
        clear = _clear_of(occupied, centres, survey(spec).reach_mm, spacing_mm)
        centres, cells = centres[clear], cells[clear]
        if deep:  # anywhere first; where noise looks like vessels nearly everywhere, then rather where there is room
            order = np.argsort(-statistics.free_mm.ravel()[cells[_ANYWHERE:]], kind="stable")
            centres = np.concatenate([centres[:_ANYWHERE], centres[_ANYWHERE:][order]])[:limit]
        else:
            if growth is not None and _grows(spec) and spec.size_class not in EARLY_SIZES:
                centres = centres[growth().share_of(_points(spec, centres)) >= _LEAST_UNCUT]
            examined = _ATTEMPTS if spec.size_class in self._sizes_clear_of_vessels else _EXAMINED
            examined = max(examined, _EXAMINED_GROWING) if _grows(spec) else examined
            centres = _least_vessels(spec, centres, statistics, spacing_mm)[:examined]
        yield from (tuple(float(value) for value in centre) for centre in centres)

    def _examine(
        self, spec: TumorSpec, statistics: OrganStatistics, volume: Volume, occupied: Sequence[Placement]
    ) -> Placement | str:
        """Looks at a place on the scan's own grid; gives the reason if it will not do."""
        spacing = volume.spacing_mm
        low, high = SIZE_BANDS_MM[spec.size_class]
        if spec.mass_effect > 0 and (volume.hu(region_of(spec, volume.shape, spacing)) > _BONE_HU).any():
            spec = replace(spec, mass_effect=0.0, mass_effect_radius_mm=0.0)
        # The organ's border cuts tumors down: one correction of the size, towards the band, then it must fit.
        for correction in (True, False):
            box = region_of(spec, volume.shape, spacing, with_mass_effect=False)
            hu, labels, inner = self._with_margin(box, statistics, volume)
            organ = tissue_of(hu, labels, wall_mm=spec.wall_mm, organ=self.organ, spacing_mm=spacing)
            pushed = displaced_labels(labels[inner], spec, box=box, spacing_mm=spacing)
            room = room_of(hu[inner], pushed, spec, organ=self.organ, spacing_mm=spacing)
            if _grows(spec) and room[_in_ellipsoid(spec, box, spacing)].mean() < _LEAST_UNCUT:
                return "too little fat around the organ to grow into"
            vessels = statistics.vessels(hu, organ, spacing)[inner]
            if spec.size_class in self._sizes_clear_of_vessels and (vessels & _middle(spec, box, spacing)).any():
                return "a vessel is in the way"
            mask = mask_in(spec, box, spacing, room)
            replaced = mask & organ[inner]
            if replaced.any() and hu[inner][replaced].mean() < statistics.least_tissue_hu:
                return "fat or fluid in the organ's mask is in the way"
            diameter = equivalent_diameter_mm(mask, spacing)
            if _grows(spec) and _ball_volume(diameter) < _LEAST_UNCUT * survey(spec).volume_mm3:
                return "too little fat around the organ to grow into"
            if diameter < _LEAST_LEFT * low:
                return "cut by the organ's border to less than its size"
            if low <= diameter < high:
                break
            if not correction:
                return "cut by the organ's border to less than its size"
            spec = scaled(spec, (low * 1.04 if diameter < low else high * 0.97) / diameter)
        # Again, since the correction may have made it larger.
        reach = survey(spec).reach_mm
        if not _clear_of(occupied, np.array([spec.centre_mm]), reach, spacing).all():
            return "another synthetic tumor is in the way"
        rooted = np.count_nonzero(replaced) / np.count_nonzero(mask)
        if spec.exophytic and rooted < (least_in_wall(spec, diameter) if spec.wall_mm else _LEAST_ROOTED):
            return "too little of it is in the organ that it grows out of"
        if _grows(spec) and rooted > 1 - _LEAST_GROWN:
            return "too little of it grows out of the organ"
        lesions = self.organ.lesions(labels[inner])
        if lesions.any():
            # On coarse grids neighbouring voxels touch although there is a distance between the shapes.
            near = maximum_filter(mask, 3) | (radial_field(spec, axes_mm(box, spacing)) <= _LESION_DISTANCE)
            if (lesions & near).any():
                return "a real lesion is in the way"
        vessel_share = float((vessels & mask).sum() / mask.sum())
        if spec.size_class in self._sizes_clear_of_vessels and vessel_share > 0:
            return "a vessel is in the way"
        if self.preset.relative_to_surroundings and spec.kind != "cyst":  # water is water anywhere
            around = organ[inner] & ~vessels
            if around.any():
                spec = replace(spec, background_hu=float(np.median(hu[inner][around])))
        return Placement(spec, diameter, vessel_share, reach)

    def _with_margin(self, box: Box, statistics: OrganStatistics, volume: Volume) -> tuple[np.ndarray, np.ndarray, Box]:
        """HU and labels of the box with the margin that the vessels' smoothing needs, and the box within it."""
        margin = np.ceil(4 * statistics.smoothing_vox(volume.spacing_mm)).astype(int) + 1
        outer = grown_box(box, margin, volume.shape)
        return volume.hu(outer), volume.labels(outer), box_within(box, outer)


def _middle(spec: TumorSpec, box: Box, spacing_mm: Sequence[float]) -> np.ndarray:
    """Boolean (z, y, x): for certain inside the tumor; quicker than the whole shape, to turn down a place."""
    ellipsoid = replace(spec, deformation_mm=0.0, roughness=0.0)
    return radial_field(ellipsoid, axes_mm(box, spacing_mm)) < _MIDDLE


def _grows(spec: TumorSpec) -> bool:
    """Whether it grows out of the organ, and only where it is hardly cut."""
    return spec.exophytic and spec.growth_radius_mm > 0


def _points(spec: TumorSpec, centres: np.ndarray) -> np.ndarray:
    """Points that are evenly spread in the ellipsoid at each of the centres (n, 3), (n, k, 3), in mm."""
    return centres[:, None] + _UNIT_BALL * spec.semi_axes_mm @ rotation_matrix(spec).T


def _in_ellipsoid(spec: TumorSpec, box: Box, spacing_mm: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Indices, in the box, of the voxels at points that are evenly spread in the ellipsoid; quicker than its mask."""
    voxels = np.rint(_points(spec, np.array([spec.centre_mm]))[0] / np.asarray(spacing_mm)).astype(int)
    return tuple(np.clip(voxels[:, i] - part.start, 0, part.stop - part.start - 1) for i, part in enumerate(box))


def equivalent_diameter_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Diameter of the ball that has the mask's volume, in mm; 0.0 for an empty mask.

    Args:
        mask: boolean (z, y, x).
        spacing_mm: voxel size, (z, y, x).
    """
    return float((6 * np.count_nonzero(mask) * np.prod(spacing_mm) / np.pi) ** (1 / 3))


def _clear_of(
    occupied: Sequence[Placement], centres: np.ndarray, reach_mm: float, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (n,): at which of the centres (n, 3) a tumor of this reach leaves a gap to all that are there."""
    clear = np.ones(len(centres), bool)
    for other in occupied:
        distance = np.linalg.norm(centres - other.spec.centre_mm, axis=1)
        clear &= distance >= reach_mm + other.reach_mm + max(_GAP_MM, *spacing_mm)
    return clear


def _ball_volume(diameter_mm: float) -> float:
    return np.pi / 6 * diameter_mm**3


def _nominal_diameter_mm(spec: TumorSpec) -> float:
    return 2 * radius_mm(spec)


def scaled(spec: TumorSpec, factor: float) -> TumorSpec:
    """The same shape at another size."""
    return replace(
        spec,
        semi_axes_mm=tuple(value * factor for value in spec.semi_axes_mm),
        deformation_mm=spec.deformation_mm * factor,
        roughness_grain_mm=spec.roughness_grain_mm * factor,
        mass_effect_radius_mm=spec.mass_effect_radius_mm * factor,
        growth_radius_mm=spec.growth_radius_mm * factor,
    )


def _shrinking(diameter_mm: float, smallest_mm: float) -> Iterator[float]:
    """The diameter, then ever smaller ones, down to just above the smallest."""
    last = 1.04 * smallest_mm
    while diameter_mm > last:
        yield diameter_mm
        diameter_mm *= _SHRINK
    yield last


def _least_vessels(
    spec: TumorSpec, centres: np.ndarray, statistics: OrganStatistics, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Of the first places that hold the ellipsoid, those with the smallest share of vessels come first."""
    wanted = _INSIDE_EXOPHYTIC if spec.exophytic else _INSIDE
    inside, vessels = np.empty(0), np.empty(0)
    # In parts, since among the first there are mostly enough.
    for part in np.array_split(centres, max(1, len(centres) // (2 * _PLACES))):
        shares = _shares_in_ellipsoid(spec, part, statistics, spacing_mm)
        inside, vessels = np.append(inside, shares[0]), np.append(vessels, shares[1])
        if np.count_nonzero((inside >= wanted[0][0]) & (inside <= wanted[0][1])) >= _PLACES:
            break
    for least, most in wanted:
        room = np.flatnonzero((inside >= least) & (inside <= most))[:_PLACES]
        if len(room):
            return centres[room[np.argsort(vessels[room], kind="stable")]]
    return centres[:0]


def _shares_in_ellipsoid(
    spec: TumorSpec, centres: np.ndarray, statistics: OrganStatistics, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the ellipsoid at each centre (n, 3) that is organ, and that is vessel."""
    cell_mm = np.multiply(statistics.cell_voxels, spacing_mm)
    first_mm = (np.asarray(statistics.cell_origin) - 0.5) * np.asarray(spacing_mm)
    cells = np.floor((_points(spec, centres) - first_mm) / cell_mm).astype(int)
    shape = np.asarray(statistics.organ_cells.shape)
    within = ((cells >= 0) & (cells < shape)).all(-1)
    cells = np.moveaxis(np.clip(cells, 0, shape - 1), -1, 0)
    inside = (statistics.organ_cells[tuple(cells)] & within).mean(1)
    vessels = (statistics.vessel_cells[tuple(cells)] & within).mean(1)
    return inside, vessels


def _unit_ball(count: int) -> np.ndarray:
    """Evenly spread points in the unit ball, (count, 3), by the golden spiral."""
    index = np.arange(count) + 0.5
    radius = (index / count) ** (1 / 3)
    height = 1 - 2 * ((index * 0.5545497) % 1)
    angle = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return radius[:, None] * np.stack([height, ring * np.cos(angle), ring * np.sin(angle)], 1)


_UNIT_BALL = _unit_ball(160)
