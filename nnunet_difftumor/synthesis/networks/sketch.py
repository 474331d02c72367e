"""A tumor whose shape is known and whose inside is to be drawn: all that leaves the process in which it was placed."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nnunet_difftumor.synthesis.networks.grid import NetworkGrid
from nnunet_difftumor.synthesis.patch import Patch, Site
from nnunet_difftumor.synthesis.shape.room import tissue_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, box_within, grown_box

# Healthy tissue up to this far from what the tumor changes tells how the picture differs from the scan.
AROUND_MM = 20.0
# Of `Sketch.rounded`: far finer than any scan's noise, and int16 holds all that a tumor can meet.
STEP_HU = 1 / 16


@dataclass(frozen=True, eq=False)
class Sketch:
    """What a diffusion model needs to know of a tumor and the scan around it.

    Boxes are in the scan's grid.

    Attributes:
        spec: the tumor.
        grid: of the networks.
        box: the scan's voxels that they see.
        around: the part of `box` whose healthy tissue is compared with what they draw.
        near: the part of `around` that is blended.
        hu: (z, y, x) of `box`, after mass effect: float32, or int16 in steps of `STEP_HU`.
        before: of `near` before mass effect, likewise.
        healthy: boolean (z, y, x) of `around`: the organ, without `near`.
        organ: boolean (z, y, x) of `near` before mass effect.
        alpha: float32 (z, y, x) of `near`, how much of each voxel is tumor; at least 0.5 somewhere.
    """

    spec: TumorSpec
    grid: NetworkGrid
    box: Box
    around: Box
    near: Box
    hu: np.ndarray
    before: np.ndarray
    healthy: np.ndarray
    organ: np.ndarray
    alpha: np.ndarray

    def rounded(self) -> "Sketch":
        """The same with HU as int16: half the bytes."""
        if self.hu.dtype == np.int16:
            return self
        return replace(self, hu=_rounded(self.hu), before=_rounded(self.before))

    def hu_of(self, box: Box) -> np.ndarray:
        """The part of `hu` in a box inside `box`; a view."""
        return self.hu[box_within(box, self.box)]

    def most_tumor(self) -> tuple[int, int, int]:
        """Index of the networks' voxel at the voxel with the highest alpha, along the scan's axes."""
        peak = np.unravel_index(int(self.alpha.argmax()), self.alpha.shape)
        first = [part.start for part in self.near]
        return self.grid.nearest(np.add(peak, first) * np.asarray(self.grid.spacing_mm))


def sketch_of(site: Site, patch: Patch, grid: NetworkGrid) -> Sketch:
    """What the networks are told of a tumor that has room.

    Args:
        site: where it goes.
        patch: of the scan, without the tumor; holds the voxels of the grid.
        grid: of the networks.
    """
    own = site.around
    seen = patch.part(grid.box(patch.scan_shape))
    hu, labels = _with_mass_effect(seen, site)
    margin = np.ceil(AROUND_MM / np.asarray(patch.spacing_mm)).astype(int)
    # No wider than the picture.
    limits = zip(grown_box(own.box, margin, patch.scan_shape), seen.box, strict=True)
    around = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in limits)
    beside = box_within(around, seen.box)
    tissue = partial(tissue_of, wall_mm=site.spec.wall_mm, organ=patch.organ, spacing_mm=patch.spacing_mm)
    healthy = tissue(hu[beside], labels[beside])
    healthy[box_within(own.box, around)] = False
    return Sketch(
        site.spec, grid, seen.box, around, own.box, hu, own.hu, healthy, tissue(own.hu, own.labels), site.alpha
    )


def _with_mass_effect(seen: Patch, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels of a patch as the tumor's growth leaves them."""
    if site.hu is site.patch.hu and site.labels is site.patch.labels:
        return seen.hu, seen.labels
    common = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(seen.box, site.patch.box, strict=True)
    )
    hu, labels = seen.hu.copy(), seen.labels.copy()
    target, source = box_within(common, seen.box), box_within(common, site.patch.box)
    hu[target], labels[target] = site.hu[source], site.labels[source]
    return hu, labels


def in_hu(values: np.ndarray) -> np.ndarray:
    """HU as a sketch has them, as float32."""
    return values if values.dtype == np.float32 else values * np.float32(STEP_HU)


def _rounded(hu: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int16)
    steps = np.clip(hu * np.float32(1 / STEP_HU), limits.min, limits.max)
    return np.rint(steps, out=steps).astype(np.int16)
