"""Our own preset: shapes, contrast and noise as in real lesions and in the scan at hand."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.synthesis.look.contrast import CONTRASTS, UNENHANCED_HU, OrganContrast, tissue_contrast_hu
from nnunet_difftumor.synthesis.look.lesion_shapes import SHAPES
from nnunet_difftumor.synthesis.look.preset import Preset, SizeDistribution, draw_seed, random_rotation, uniform
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.spec import TumorSpec

Interval = tuple[float, float]

_EDGE_BLUR_MM = (0.6, 1.2)
# Where a tumor grows out, a ball of this radius must find room, relative to the tumor's.
_GROWTH_RADIUS = 0.3
_CAPSULE_MM, _CAPSULE_ENHANCEMENT, _LEAST_ENHANCED_HU = (1.0, 2.5), (0.3, 0.8), 15.0


@dataclass(frozen=True)
class _Look:
    """What the size decides.

    Attributes:
        texture_sd_hu: of what is uneven inside a tumor beyond noise.
        texture_grain_mm: size of that.
        core, capsule, mass_effect: probability of each.
    """

    texture_sd_hu: Interval
    texture_grain_mm: Interval
    core: float
    capsule: float
    mass_effect: float


_LOOKS: Mapping[str, _Look] = {
    "tiny": _Look((1.0, 4.0), (1.5, 2.5), 0.0, 0.0, 0.0),
    "small": _Look((2.0, 6.0), (1.5, 3.0), 0.1, 0.03, 0.0),
    "medium": _Look((3.0, 8.0), (2.0, 4.0), 0.3, 0.08, 0.15),
    "large": _Look((4.0, 10.0), (2.5, 6.0), 0.6, 0.15, 0.35),
}


@dataclass(frozen=True)
class _Organ:
    """What the organ decides.

    Attributes:
        shapes: whose shapes are drawn.
        exophytic: per size class, the probability of growing out of the organ (KiTS23: share of tumors of which more
            than a fifth lies outside).
        contrast: to the organ.
    """

    shapes: str
    exophytic: Mapping[str, float]
    contrast: OrganContrast


_NEVER = {"tiny": 0.0, "small": 0.0, "medium": 0.0, "large": 0.0}
ORGANS: Mapping[str, _Organ] = {
    "liver": _Organ(
        shapes="liver",
        exophytic=_NEVER,
        contrast=CONTRASTS["liver"],
    ),
    "kidney": _Organ(
        shapes="kidney",
        exophytic={"tiny": 0.2, "small": 0.5, "medium": 0.8, "large": 0.97},
        contrast=CONTRASTS["kidney"],
    ),
    "pancreas": _Organ(
        shapes="pancreas",
        exophytic={"tiny": 0.2, "small": 0.5, "medium": 0.9, "large": 1.0},
        contrast=CONTRASTS["pancreas"],
    ),
}


@dataclass(frozen=True)
class RealisticPreset(Preset):
    """Shapes of real lesions of that organ, contrast by the organ's enhancement, the scan's own noise."""

    @property
    def relative_to_surroundings(self) -> bool:
        return True

    def draw(self, organ: str, size: str, *, statistics: OrganStatistics, rng: np.random.Generator) -> TumorSpec:
        kind, look = kind_of(organ), _LOOKS[size]
        radius = self.sizes[size].draw_radius_mm(rng)
        edge_blur_mm = uniform(rng, _EDGE_BLUR_MM)
        shape = SHAPES[kind.shapes][size].draw(rng, radius_mm=radius)
        exophytic = rng.random() < kind.exophytic[size]
        core = rng.random() < look.core
        # Fat gives way without being seen to.
        mass_effect = rng.random() < look.mass_effect and not exophytic
        capsule = rng.random() < look.capsule
        return TumorSpec(
            organ=organ,
            size_class=size,
            centre_mm=(0.0, 0.0, 0.0),
            **shape,
            rotation=random_rotation(rng),
            background_hu=statistics.parenchyma_hu,
            contrast_hu=self._draw_contrast_hu(
                kind.contrast, size, statistics, radius_mm=radius, edge_blur_mm=edge_blur_mm, rng=rng
            ),
            texture_sd_hu=uniform(rng, look.texture_sd_hu),
            texture_grain_mm=uniform(rng, look.texture_grain_mm),
            texture_blur_mm=0.6,
            edge_blur_mm=edge_blur_mm,
            seed=draw_seed(rng),
            exophytic=bool(exophytic),
            growth_radius_mm=_GROWTH_RADIUS * radius if exophytic else 0.0,
            noise_sd_hu=statistics.noise.sd_hu,
            noise_correlation=statistics.noise.correlation,
            core_size=uniform(rng, (0.4, 0.7)) if core else 0.0,
            core_contrast_hu=uniform(rng, (-30.0, -10.0)) if core else 0.0,
            capsule_hu=_capsule_hu(statistics, rng) if capsule else 0.0,
            capsule_mm=uniform(rng, _CAPSULE_MM) if capsule else 0.0,
            mass_effect=uniform(rng, (0.2, 0.6)) if mass_effect else 0.0,
            mass_effect_radius_mm=radius * uniform(rng, (1.4, 1.8)) if mass_effect else 0.0,
        )

    def _draw_contrast_hu(
        self,
        contrast: OrganContrast,
        size: str,
        statistics: OrganStatistics,
        *,
        radius_mm: float,
        edge_blur_mm: float,
        rng: np.random.Generator,
    ) -> float:
        if self.contrast_hu is not None:
            return uniform(rng, self.contrast_hu)
        measured_hu = contrast.draw_hu(size, organ_hu=statistics.parenchyma_hu, rng=rng)
        return tissue_contrast_hu(measured_hu, radius_mm=radius_mm, edge_blur_mm=edge_blur_mm)


def _capsule_hu(statistics: OrganStatistics, rng: np.random.Generator) -> float:
    """A share of what the organ takes up of the contrast agent; without any, a little."""
    enhanced = max(statistics.parenchyma_hu - UNENHANCED_HU, _LEAST_ENHANCED_HU)
    return enhanced * uniform(rng, _CAPSULE_ENHANCEMENT)


def kind_of(organ: str) -> _Organ:
    """By the organ's name."""
    return ORGANS[like_which(organ)]


def like_which(organ: str) -> str:
    """Whose tumors it gets, a name in `ORGANS`: left_kidney those of the kidney; other organs those of the liver, which
    `organ_names.note_on_organ` says.
    """
    return next((name for name in ORGANS if name in organ.lower()), "liver")


REALISTIC = RealisticPreset(
    sizes={
        "tiny": SizeDistribution((2.8, 4.7), (1, 3)),
        "small": SizeDistribution((5.3, 9.4), (1, 3)),
        "medium": SizeDistribution((10.5, 19.0), (1, 2)),
        "large": SizeDistribution((21.0, 36.0), (1, 1)),
    },
    weights={"tiny": 0.3, "small": 0.4, "medium": 0.2, "large": 0.1},
    shares=SampleShares(real=0.5, synthetic=0.5, healthy=0.0),
)
