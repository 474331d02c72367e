"""The hand-crafted renderer: Hu et al., CVPR 2023, section 3.1, equation 4, without any learned model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.shape import alpha_in
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.texture import grain_texture
from nnunet_difftumor.synthesis.volume import Box


@dataclass(frozen=True)
class Patch:
    """The region of a scan that a renderer may look at and change.

    Attributes:
        box: the region in the scan's grid.
        hu: float32 (z, y, x) of the box.
        organ: boolean (z, y, x) of the box: where the tumor may be.
        spacing_mm: voxel size, (z, y, x).
    """

    box: Box
    hu: np.ndarray
    organ: np.ndarray
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class RenderedTumor:
    """A tumor ready to be written into a scan.

    Attributes:
        spec: what was rendered.
        box: the region in the scan's grid.
        hu: float32 (z, y, x) of the box, the scan with the tumor; voxels that the tumor does not reach are unchanged.
        mask: boolean (z, y, x) of the box, {alpha >= 0.5}: one component; empty if nothing of it is inside the organ.
    """

    spec: TumorSpec
    box: Box
    hu: np.ndarray
    mask: np.ndarray


class HandcraftedRenderer:
    """Replaces organ by textured tumor: f' = (1 - alpha) f + alpha T (equation 4)."""

    name = "handcrafted"

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        """Renders each spec into its patch. Deterministic: the spec's seed makes the texture.

        Raises:
            InputError: if a spec names another renderer.
        """
        for spec in specs:
            if spec.renderer != self.name:
                raise InputError(f"tumor spec: renderer is {spec.renderer!r}, expected {self.name!r}")
        return [self._render(patch, spec) for patch, spec in zip(patches, specs, strict=True)]

    def _render(self, patch: Patch, spec: TumorSpec) -> RenderedTumor:
        alpha = alpha_in(spec, patch.box, patch.spacing_mm, patch.organ)
        mask = alpha >= 0.5
        if not mask.any():
            return RenderedTumor(spec, patch.box, patch.hu, mask)
        # A stream of its own: the displacement uses the seed itself.
        rng = np.random.default_rng((spec.seed, 1))
        texture = grain_texture(patch.hu.shape, rng, grain_vox=spec.texture_grain_vox, blur_vox=spec.texture_blur_vox)
        texture *= np.float32(spec.texture_sd_hu)
        # The mean over a small tumor would miss the contrast that the spec promises by several HU.
        texture += np.float32(spec.background_hu + spec.contrast_hu - float(texture[mask].mean()))
        hu = patch.hu + alpha * (texture - patch.hu)
        return RenderedTumor(spec, patch.box, np.where(alpha > 0, hu, patch.hu), mask)
