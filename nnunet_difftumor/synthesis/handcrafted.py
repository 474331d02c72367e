"""The hand-crafted renderer: Hu et al., CVPR 2023, section 3.1, equations 4 to 8, without any learned model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit, ndtr

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.look.texture import grain_texture
from nnunet_difftumor.synthesis.noise import Noise, noise_under
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Site, site_of
from nnunet_difftumor.synthesis.shape.field import radial_field
from nnunet_difftumor.synthesis.shape.profile import squared_slopes
from nnunet_difftumor.synthesis.shape.survey import region_of
from nnunet_difftumor.synthesis.spec import SeedStream, TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume, axes_mm

# Hu et al., Table 1: the capsule is where the blurred shape lies between these, and is blurred by sigma_d = 0.8.
_CAPSULE_FROM, _CAPSULE_TO, _CAPSULE_BLUR_MM = 0.4, 0.7, 0.8
# A core's border is this wide, in units of the tumor's size.
_CORE_EDGE = 0.12


class HandcraftedRenderer:
    """Pushes tissue away, and replaces it by textured tumor: f' = (1 - alpha) f + alpha T (equations 4 and 5)."""

    name = "handcrafted"

    def region(self, volume: Volume, spec: TumorSpec) -> Box:
        return region_of(spec, volume.shape, volume.spacing_mm)

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        """Renders each spec into its patch. Deterministic: the spec's seed makes texture and noise.

        Raises:
            InputError: if a spec names another renderer.
        """
        for spec in specs:
            if spec.renderer != self.name:
                raise InputError(f"tumor spec: renderer is {spec.renderer!r}, expected {self.name!r}")
        return [_rendered(patch, spec) for patch, spec in zip(patches, specs, strict=True)]

    def record(self) -> dict[str, Any]:
        return {"name": self.name}


def _rendered(patch: Patch, spec: TumorSpec) -> RenderedTumor:
    site = site_of(patch, spec)
    if not site.mask.any():
        return site.unchanged()
    tissue, added = _tissue(site), None
    if spec.capsule_hu > 0 and spec.capsule_mm > 0:
        tissue += np.float32(spec.capsule_hu) * _shell(site)
    elif spec.capsule_hu > 0:
        added = np.float32(spec.capsule_hu) * _capsule(site.alpha, patch.spacing_mm)
    return site.blended(tissue, added_hu=added)


def _tissue(site: Site) -> np.ndarray:
    """T in equation 4, float32 of `site.near`: the tumor's intensities, wherever it is."""
    spec, patch = site.spec, site.around
    spacing = np.asarray(patch.spacing_mm)
    tissue = grain_texture(
        patch.hu.shape,
        spec.generator(SeedStream.TEXTURE),
        grain_vox=np.maximum(spec.texture_grain_mm / spacing, 1),
        blur_vox=spec.texture_blur_mm / spacing,
        spline=spec.texture_spline,
    )
    tissue *= np.float32(spec.texture_sd_hu)
    if spec.core_size > 0:
        level = radial_field(spec, axes_mm(patch.box, patch.spacing_mm))
        inner = expit((np.float32(spec.core_size) - level) * np.float32(4 / _CORE_EDGE))
        tissue += np.float32(spec.core_contrast_hu) * inner
    if spec.noise_sd_hu > 0:
        tissue += noise_under(
            patch.hu,
            patch.tissue(spec.wall_mm),
            patch.spacing_mm,
            around_hu=spec.background_hu,
            noise=Noise(spec.noise_sd_hu, spec.noise_correlation),
            rng=spec.generator(SeedStream.NOISE),
        )
    # The mean over a small tumor would miss the contrast that the spec promises by several HU.
    tissue += np.float32(spec.background_hu + spec.contrast_hu - float(tissue[site.mask].mean()))
    return tissue


def _capsule(alpha: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Equations 6 and 7, float32 (z, y, x) within 0 to 1."""
    edge = ((alpha >= _CAPSULE_FROM) & (alpha <= _CAPSULE_TO)).astype(np.float32)
    return gaussian_filter(edge, _CAPSULE_BLUR_MM / np.asarray(spacing_mm))


def _shell(site: Site) -> np.ndarray:
    """How much of each voxel is capsule, float32 of `site.near` within 0 to 1: a shell inside the tumor's surface.

    Of one thickness on every grid, its inner side blurred as the tumor's edge is, and by the voxel. Outside of the mask
    there is none, so that nothing around is brightened, and none where the organ's border cuts the tumor.
    """
    spec, patch = site.spec, site.around
    level = radial_field(spec, axes_mm(patch.box, patch.spacing_mm))
    slope, across_voxel = squared_slopes(level, patch.spacing_mm)
    slope += np.float32(1e-12)
    depth_mm = (1 - level) / np.sqrt(slope)
    blur_mm = np.sqrt(np.float32(spec.edge_blur_mm**2 / 4) + across_voxel / slope)
    return ndtr((np.float32(spec.capsule_mm) - depth_mm) / blur_mm) * site.mask
