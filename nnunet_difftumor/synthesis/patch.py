"""What every renderer gets and gives, and the geometry that all share: mass effect, room, blending and label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.shape.mass_effect import displaced, displaced_labels
from nnunet_difftumor.synthesis.shape.profile import alpha_in
from nnunet_difftumor.synthesis.shape.room import room_of, tissue_of
from nnunet_difftumor.synthesis.shape.survey import region_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume, box_within

# Scans are stored in whole HU: less noise than that is none.
_LEAST_NOISE_HU = 1.0
# Fewer voxels of organ around a tumor say nothing of it, and more than so many no more.
_LEAST_AROUND, _ENOUGH_AROUND = 30, 20_000


@dataclass(frozen=True)
class Patch:
    """The region of a scan that a renderer may look at.

    Attributes:
        box: the region in the scan's grid.
        hu: float32 (z, y, x) of the box.
        labels: integer (z, y, x) of the box.
        organ: which labels are the organ, and what a tumor's label is.
        spacing_mm: voxel size, (z, y, x).
        scan_shape: voxels of the whole scan, (z, y, x).
        direction: float (3, 3), its columns the unit vectors of the array's axes in RAS+ space; None: not known.
    """

    box: Box
    hu: np.ndarray
    labels: np.ndarray
    organ: Organ
    spacing_mm: tuple[float, float, float]
    scan_shape: tuple[int, int, int]
    direction: np.ndarray | None = None

    def part(self, box: Box) -> "Patch":
        """The patch of a box (in the scan's grid) inside this one's; its arrays are views."""
        inner = box_within(box, self.box)
        return Patch(
            box, self.hu[inner], self.labels[inner], self.organ, self.spacing_mm, self.scan_shape, self.direction
        )

    def tissue(self, wall_mm: float) -> np.ndarray:
        """Boolean (z, y, x): healthy tissue of the organ; of a hollow one its wall of this thickness."""
        return tissue_of(self.hu, self.labels, wall_mm=wall_mm, organ=self.organ, spacing_mm=self.spacing_mm)


class TissueAround(NamedTuple):
    """Organ tissue beside a tumor, in the scan before the tumor.

    Attributes:
        hu: median, which a vessel or the organ's border does not change.
        sd_hu: standard deviation as 1.4826 times the median distance from `hu`: the scan's noise there.
    """

    hu: float
    sd_hu: float


@dataclass(frozen=True)
class RenderedTumor:
    """A tumor ready to be written into a scan.

    Attributes:
        spec: what was rendered.
        box: the region in the scan's grid.
        hu: float32 (z, y, x) of the box, the scan with the tumor; voxels that the tumor does not reach are unchanged.
        labels: integer (z, y, x) of the box, the label map with the tumor; look-alikes have no label of their own.
        mask: boolean (z, y, x) of the box, {alpha >= 0.5}: one component; empty if there is no room for any of it.
        around: the tissue that its contrast is measured to; None where there is too little, or it is not known.
    """

    spec: TumorSpec
    box: Box
    hu: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    around: TissueAround | None = None

    def measured_contrast_hu(self) -> float | None:
        """mean(HU of the mask) - median(HU of the organ around, before the tumor); None for a tumor without room.

        Where `around` is None, it is the spec's `background_hu` that is subtracted.
        """
        if not self.mask.any():
            return None
        around_hu = self.spec.background_hu if self.around is None else self.around.hu
        return round(float(self.hu[self.mask].mean(dtype=np.float64)) - around_hu, 2)

    def contrast_to_noise(self) -> float | None:
        """|`measured_contrast_hu`| / max(`around.sd_hu`, 1 HU); None for a tumor without room or tissue around."""
        contrast_hu = self.measured_contrast_hu()
        if contrast_hu is None or self.around is None:
            return None
        return round(abs(contrast_hu) / max(self.around.sd_hu, _LEAST_NOISE_HU), 3)


class Renderer(Protocol):
    """Turns specs into voxels, deterministically."""

    name: str

    def region(self, volume: Volume, spec: TumorSpec) -> Box:
        """What it must see of a scan to render a spec."""

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        """Renders each spec into its patch.

        Raises:
            InputError: for a spec of another renderer.
        """

    def record(self) -> dict[str, Any]:
        """For manifests: its name under "name", and what its voxels depend on besides scan, spec and versions."""


@dataclass(frozen=True)
class Site:
    """Where a tumor goes: the tissue pushed away, and how much of each voxel becomes tumor.

    Attributes:
        spec: the tumor.
        patch: the region that the tumor changes, as it was.
        hu: float32 (z, y, x) of the patch after mass effect; the patch's own array if there is none.
        labels: integer (z, y, x) of the patch after mass effect.
        near: the part of the patch that is blended; mass effect reaches farther.
        alpha: float32 of `near`, how much of each voxel is tumor.
        mask: boolean of `near`, {alpha >= 0.5}; empty if there is no room for any of the tumor.
    """

    spec: TumorSpec
    patch: Patch
    hu: np.ndarray
    labels: np.ndarray
    near: Box
    alpha: np.ndarray
    mask: np.ndarray

    @property
    def around(self) -> Patch:
        """The patch of `near`, as it was."""
        whole = zip(self.near, self.patch.box, strict=True)
        return self.patch.part(tuple(slice(a.start + b.start, a.stop + b.start) for a, b in whole))

    def unchanged(self) -> RenderedTumor:
        """For a tumor without room."""
        empty = np.zeros(self.patch.hu.shape, bool)
        return RenderedTumor(self.spec, self.patch.box, self.patch.hu, self.patch.labels, empty)

    def blended(self, tissue_hu: np.ndarray, *, added_hu: np.ndarray | None = None) -> RenderedTumor:
        """f' = (1 - alpha) f + alpha T (Hu et al., CVPR 2023, equation 4), and the label.

        Args:
            tissue_hu: T, float32 of `near`.
            added_hu: float32 of `near`, added where alpha is above 0.
        """
        before = self.hu[self.near]
        blended = before + self.alpha * (tissue_hu - before)
        if added_hu is not None:
            blended += added_hu
        return self.finished(blended)

    def finished(self, blended_hu: np.ndarray) -> RenderedTumor:
        """The tumor whose blended HU are known, float32 of `near`; they count where alpha is above 0."""
        hu = self.hu.copy() if self.hu is self.patch.hu else self.hu
        hu[self.near] = np.where(self.alpha > 0, blended_hu, hu[self.near])
        mask = np.zeros(hu.shape, bool)
        mask[self.near] = self.mask
        labels = self.labels
        if self.spec.kind == "tumor":
            labels = np.where(mask, labels.dtype.type(self.patch.organ.tumor_label), labels)
        around = self.around
        tissue = tissue_around(around, self.mask, wall_mm=self.spec.wall_mm)
        return RenderedTumor(self.spec, self.patch.box, hu, labels, mask, tissue)


def tissue_around(around: Patch, mask: np.ndarray, *, wall_mm: float) -> TissueAround | None:
    """Measures the organ beside a tumor; None if there is too little of it.

    Args:
        around: the scan around the tumor, before it.
        mask: boolean of the same shape, the tumor.
        wall_mm: of its spec.
    """
    values = around.hu[around.tissue(wall_mm) & ~mask]
    if values.size < _LEAST_AROUND:
        return None
    values = values[:: max(1, values.size // _ENOUGH_AROUND)]
    median = float(np.median(values))
    return TissueAround(median, 1.4826 * float(np.median(np.abs(values - np.float32(median)))))


def site_of(patch: Patch, spec: TumorSpec) -> Site:
    """Pushes tissue away and finds what of the tumor has room.

    Args:
        patch: holds at least what the tumor changes; of what is beyond, nothing is looked at.
        spec: the tumor.
    """
    patch = patch.part(region_of(spec, patch.scan_shape, patch.spacing_mm))
    hu = displaced(patch.hu, spec, box=patch.box, spacing_mm=patch.spacing_mm)
    labels = displaced_labels(patch.labels, spec, box=patch.box, spacing_mm=patch.spacing_mm)
    blended = region_of(spec, patch.scan_shape, patch.spacing_mm, with_mass_effect=False)
    near = box_within(blended, patch.box)
    room = room_of(patch.hu[near], labels[near], spec, organ=patch.organ, spacing_mm=patch.spacing_mm)
    alpha = alpha_in(spec, blended, patch.spacing_mm, room)
    return Site(spec, patch, hu, labels, near, alpha, alpha >= 0.5)
