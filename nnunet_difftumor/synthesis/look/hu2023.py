"""Tumors as Hu et al. draw them (CVPR 2023, Tables 1 and 6)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.synthesis.look.preset import Preset, SizeDistribution, draw_seed, random_rotation, uniform
from nnunet_difftumor.synthesis.look.sample_shares import PUBLIC_CODE, SampleShares
from nnunet_difftumor.synthesis.look.texture import attenuation
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.spec import TumorSpec

# The semi-axes vary by a quarter around the radius (section 3.1).
_AXIS_SPREAD = 0.25
# sigma_e, Table 6.
_DEFORMATION_MM: Mapping[str, tuple[float, float]] = {
    "tiny": (0.5, 1.0),
    "small": (1.0, 2.0),
    "medium": (3.0, 6.0),
    "large": (5.0, 10.0),
}
# sigma_c, eta, sigma_b, gamma_max / r, I / 100 and d, Table 1. The paper works at 1 mm, where a voxel is 1 mm.
_EDGE_BLUR_MM, _GRAIN_MM, _TEXTURE_BLUR_MM = (0.6, 1.2), (1.1, 1.5), 0.6
# The least that a spec may have: what is left is the partial volume of the voxels.
_SHARP_MM = 0.001
_MASS_EFFECT_RADIUS, _MASS_EFFECT, _CAPSULE_HU = 1.3, 0.3, 120.0


@dataclass(frozen=True)
class HuPreset(Preset):
    """The paper's distributions.

    Attributes:
        for_looking: with mass effect and capsule, which the paper uses for its visual Turing test, not for training.
        spline: whether the texture's grains are interpolated by a cubic spline, as in the paper.
        deforms: whether the ellipsoid is deformed; only the ablation of Table 4 leaves it out.
        blurs_edge: likewise, whether the edge is blurred.
    """

    for_looking: bool = False
    spline: bool = False
    deforms: bool = True
    blurs_edge: bool = True

    @property
    def relative_to_surroundings(self) -> bool:
        return self.contrast_hu is not None

    def draw(self, organ: str, size: str, *, statistics: OrganStatistics, rng: np.random.Generator) -> TumorSpec:
        radius = self.sizes[size].draw_radius_mm(rng)
        semi_axes = radius * rng.uniform(1 - _AXIS_SPREAD, 1 + _AXIS_SPREAD, 3)
        grain = uniform(rng, _GRAIN_MM)
        looking = {}
        if self.for_looking:
            looking = {
                "mass_effect": _MASS_EFFECT,
                "mass_effect_radius_mm": _MASS_EFFECT_RADIUS * float(max(semi_axes)),
                "capsule_hu": _CAPSULE_HU,
            }
        return TumorSpec(
            organ=organ,
            size_class=size,
            centre_mm=(0.0, 0.0, 0.0),
            semi_axes_mm=tuple(float(value) for value in semi_axes),
            rotation=random_rotation(rng),
            # A step that is left out draws its number all the same, so that the others stay what they are.
            deformation_mm=uniform(rng, _DEFORMATION_MM[size]) * self.deforms,
            background_hu=statistics.parenchyma_hu,
            contrast_hu=self._draw_contrast_hu(statistics, rng),
            # Scaling up and blurring take away some of the texture's strength, in the paper too.
            texture_sd_hu=statistics.parenchyma_sd_hu * attenuation(grain, _TEXTURE_BLUR_MM, spline=self.spline),
            texture_grain_mm=grain,
            texture_blur_mm=_TEXTURE_BLUR_MM,
            edge_blur_mm=max(_SHARP_MM, uniform(rng, _EDGE_BLUR_MM) * self.blurs_edge),
            seed=draw_seed(rng),
            texture_spline=self.spline,
            **looking,
        )

    def _draw_contrast_hu(self, statistics: OrganStatistics, rng: np.random.Generator) -> float:
        if self.contrast_hu is not None:
            return uniform(rng, self.contrast_hu)
        # mu_t ~ U(30, mu_p - 10). Where the organ itself is near 30 HU (no contrast agent) that interval is empty or
        # turned round: then 10 to 25 HU below the organ.
        high = statistics.parenchyma_hu - 10
        low = 30.0 if high - 30.0 >= 15 else high - 15
        return uniform(rng, (low, high)) - statistics.parenchyma_hu


def _sizes(counts: Mapping[str, tuple[int, int]]) -> Mapping[str, SizeDistribution]:
    radii = {"tiny": 4.0, "small": 8.0, "medium": 16.0, "large": 32.0}
    return {size: SizeDistribution((radius, radius), counts[size]) for size, radius in radii.items()}


_EQUAL = {"tiny": 0.25, "small": 0.25, "medium": 0.25, "large": 0.25}
_COUNTS = {"tiny": (3, 10), "small": (3, 10), "medium": (2, 5), "large": (1, 3)}
# The public code's; real cases take the rest where there are any, which Hu et al. do not use.
_SHARES = SampleShares(real=0.1, synthetic=0.9, healthy=0.0)
# Five types of scans, each as frequent: those of one size, and those of every size (Table 6, "mix").
HU2023 = HuPreset(_sizes(_COUNTS), _EQUAL, _SHARES, every_size=0.2)
HU2023_SPLINE = HuPreset(_sizes(_COUNTS), _EQUAL, _SHARES, every_size=0.2, spline=True)
HU2023_VISUAL = HuPreset(_sizes(_COUNTS), _EQUAL, _SHARES, every_size=0.2, for_looking=True)
# The ablation of Table 4.
HU2023_UNDEFORMED = HuPreset(_sizes(_COUNTS), _EQUAL, _SHARES, every_size=0.2, deforms=False)
HU2023_SHARP = HuPreset(_sizes(_COUNTS), _EQUAL, _SHARES, every_size=0.2, blurs_edge=False)
HU2023_ELLIPSOID = HuPreset(_sizes(_COUNTS), _EQUAL, _SHARES, every_size=0.2, deforms=False, blurs_edge=False)
# Sizes and shares of the public DiffTumor code (CVPR 2024; the paper does not give them), with the shapes of Hu et al.
DIFFTUMOR = HuPreset(
    _sizes({"tiny": (1, 3), "small": (1, 3), "medium": (1, 1), "large": (1, 1)}),
    {"tiny": 0.4, "small": 0.4, "medium": 0.1, "large": 0.1},
    PUBLIC_CODE,
)
