"""The hand-crafted renderer: Hu et al., CVPR 2023, section 3.1, equations 4 to 8, without any learned model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.mass_effect import displaced, displaced_labels
from nnunet_difftumor.synthesis.noise import Noise, noise_under
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.room import room_of
from nnunet_difftumor.synthesis.shape import alpha_in, radial_field, region_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.texture import grain_texture
from nnunet_difftumor.synthesis.volume import Box, axes_mm

# Hu et al., Table 1: the capsule is where the blurred shape lies between these, and is blurred by sigma_d = 0.8.
_CAPSULE_FROM, _CAPSULE_TO, _CAPSULE_BLUR_MM = 0.4, 0.7, 0.8
# A core's border is this wide, in units of the tumor's size.
_CORE_EDGE = 0.12
# Streams of the spec's seed; the displacement uses the seed itself, the relief 2, mass effect 4.
_TEXTURE_STREAM, _NOISE_STREAM = 1, 3


@dataclass(frozen=True)
class Patch:
    """The region of a scan that a renderer may look at and change.

    Attributes:
        box: the region in the scan's grid.
        hu: float32 (z, y, x) of the box.
        labels: integer (z, y, x) of the box.
        organ: which labels are the organ, and what a tumor's label is.
        spacing_mm: voxel size, (z, y, x).
    """

    box: Box
    hu: np.ndarray
    labels: np.ndarray
    organ: Organ
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class RenderedTumor:
    """A tumor ready to be written into a scan.

    Attributes:
        spec: what was rendered.
        box: the region in the scan's grid.
        hu: float32 (z, y, x) of the box, the scan with the tumor; voxels that the tumor does not reach are unchanged.
        labels: integer (z, y, x) of the box, the label map with the tumor; look-alikes have no label of their own.
        mask: boolean (z, y, x) of the box, {alpha >= 0.5}: one component; empty if there is no room for any of it.
    """

    spec: TumorSpec
    box: Box
    hu: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


class HandcraftedRenderer:
    """Pushes tissue away, and replaces it by textured tumor: f' = (1 - alpha) f + alpha T (equations 4 and 5)."""

    name = "handcrafted"

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        """Renders each spec into its patch. Deterministic: the spec's seed makes texture and noise.

        Raises:
            InputError: if a spec names another renderer.
        """
        for spec in specs:
            if spec.renderer != self.name:
                raise InputError(f"tumor spec: renderer is {spec.renderer!r}, expected {self.name!r}")
        return [self._render(patch, spec) for patch, spec in zip(patches, specs, strict=True)]

    def _render(self, patch: Patch, spec: TumorSpec) -> RenderedTumor:
        hu = displaced(patch.hu, spec, box=patch.box, spacing_mm=patch.spacing_mm)
        labels = displaced_labels(patch.labels, spec, box=patch.box, spacing_mm=patch.spacing_mm)
        # Mass effect reaches farther than what is blended.
        near = _region_within(patch, spec)
        around = Patch(
            tuple(slice(part.start + a.start, part.start + a.stop) for part, a in zip(patch.box, near, strict=True)),
            patch.hu[near],
            patch.labels[near],
            patch.organ,
            patch.spacing_mm,
        )
        room = room_of(around.hu, labels[near], spec, organ=patch.organ, spacing_mm=patch.spacing_mm)
        alpha = alpha_in(spec, around.box, patch.spacing_mm, room)
        mask = np.zeros(patch.hu.shape, bool)
        mask[near] = alpha >= 0.5
        if not mask.any():
            return RenderedTumor(spec, patch.box, patch.hu, patch.labels, mask)
        tumor = _tissue(around, spec, mask[near])
        blended = hu[near] + alpha * (tumor - hu[near])
        if spec.capsule_hu > 0:
            blended += np.float32(spec.capsule_hu) * _capsule(alpha, patch.spacing_mm)
        hu = hu.copy() if hu is patch.hu else hu
        hu[near] = np.where(alpha > 0, blended, hu[near])
        if spec.kind == "tumor":
            labels = np.where(mask, labels.dtype.type(patch.organ.tumor_label), labels)
        return RenderedTumor(spec, patch.box, hu, labels, mask)


def _region_within(patch: Patch, spec: TumorSpec) -> Box:
    """The region of the tumor itself as part of the patch."""
    grid = [part.stop for part in patch.box]
    region = region_of(spec, grid, patch.spacing_mm, with_mass_effect=False)
    return tuple(
        slice(max(part.start, whole.start) - whole.start, max(part.stop, whole.start) - whole.start)
        for part, whole in zip(region, patch.box, strict=True)
    )


def _tissue(patch: Patch, spec: TumorSpec, mask: np.ndarray) -> np.ndarray:
    """T in equation 4, float32 (z, y, x) of the patch: the tumor's intensities, wherever it is."""
    spacing = np.asarray(patch.spacing_mm)
    tissue = grain_texture(
        patch.hu.shape,
        np.random.default_rng((spec.seed, _TEXTURE_STREAM)),
        grain_vox=np.maximum(spec.texture_grain_mm / spacing, 1),
        blur_vox=spec.texture_blur_mm / spacing,
    )
    tissue *= np.float32(spec.texture_sd_hu)
    if spec.core_size > 0:
        level = radial_field(spec, axes_mm(patch.box, patch.spacing_mm))
        inner = expit((np.float32(spec.core_size) - level) * np.float32(4 / _CORE_EDGE))
        tissue += np.float32(spec.core_contrast_hu) * inner
    if spec.noise_sd_hu > 0:
        tissue += noise_under(
            patch.hu,
            patch.organ.mask(patch.labels),
            patch.spacing_mm,
            around_hu=spec.background_hu,
            noise=Noise(spec.noise_sd_hu, spec.noise_correlation),
            rng=np.random.default_rng((spec.seed, _NOISE_STREAM)),
        )
    # The mean over a small tumor would miss the contrast that the spec promises by several HU.
    tissue += np.float32(spec.background_hu + spec.contrast_hu - float(tissue[mask].mean()))
    return tissue


def _capsule(alpha: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Equations 6 and 7, float32 (z, y, x) within 0 to 1."""
    edge = ((alpha >= _CAPSULE_FROM) & (alpha <= _CAPSULE_TO)).astype(np.float32)
    return gaussian_filter(edge, _CAPSULE_BLUR_MM / np.asarray(spacing_mm))
