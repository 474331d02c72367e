"""Our own preset: shapes, contrast and noise as in real lesions and in the scan at hand."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.synthesis.look.contrast import CONTRASTS, OrganContrast, tissue_contrast_hu
from nnunet_difftumor.synthesis.look.lesion_shapes import SHAPES
from nnunet_difftumor.synthesis.look.preset import Preset, SizeDistribution, draw_seed, random_rotation, uniform
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.spec import TumorSpec

Interval = tuple[float, float]

# Displacement and relief make shapes a little more elongated and flatter than the ellipsoid that they start from; most
# of all tiny ones, whose relief is the roughest.
_SOFTENING = {"tiny": 0.8, "small": 0.9, "medium": 0.9, "large": 0.9}
_EDGE_BLUR_MM = (0.6, 1.2)


@dataclass(frozen=True)
class _Look:
    """What the size decides.

    Attributes:
        deformation: sd of the displacement, relative to the radius.
        texture_sd_hu: of what is uneven inside a tumor beyond noise.
        texture_grain_mm: size of that.
        core, capsule, mass_effect: probability of each.
    """

    deformation: Interval
    texture_sd_hu: Interval
    texture_grain_mm: Interval
    core: float
    capsule: float
    mass_effect: float


_LOOKS: Mapping[str, _Look] = {
    "tiny": _Look((0.0, 0.05), (1.0, 4.0), (1.5, 2.5), 0.0, 0.0, 0.0),
    "small": _Look((0.02, 0.10), (2.0, 6.0), (1.5, 3.0), 0.1, 0.03, 0.0),
    "medium": _Look((0.03, 0.12), (3.0, 8.0), (2.0, 4.0), 0.3, 0.08, 0.15),
    "large": _Look((0.04, 0.14), (4.0, 10.0), (2.5, 6.0), 0.6, 0.15, 0.35),
}


@dataclass(frozen=True)
class _Organ:
    """What the organ decides.

    Attributes:
        shapes: whose shapes are drawn.
        roughness: per size class, the relief's sd relative to the semi-axes.
        roughness_grain_mm: per size class.
        exophytic: per size class, the probability of growing out of the organ (KiTS23: share of tumors of which more
            than a fifth lies outside).
        contrast: to the organ.
    """

    shapes: str
    roughness: Mapping[str, Interval]
    roughness_grain_mm: Mapping[str, Interval]
    exophytic: Mapping[str, float]
    contrast: OrganContrast


_GRAINS_MM = {"tiny": (2.0, 3.0), "small": (2.0, 4.0), "medium": (3.0, 5.0), "large": (3.0, 6.0)}
_NEVER = {"tiny": 0.0, "small": 0.0, "medium": 0.0, "large": 0.0}
ORGANS: Mapping[str, _Organ] = {
    "liver": _Organ(
        shapes="liver",
        roughness={"tiny": (0.14, 0.46), "small": (0.05, 0.28), "medium": (0.04, 0.24), "large": (0.03, 0.16)},
        roughness_grain_mm=_GRAINS_MM,
        exophytic=_NEVER,
        contrast=CONTRASTS["liver"],
    ),
    "kidney": _Organ(
        shapes="kidney",
        roughness={"tiny": (0.02, 0.12), "small": (0.02, 0.10), "medium": (0.02, 0.08), "large": (0.01, 0.06)},
        roughness_grain_mm=_GRAINS_MM,
        exophytic={"tiny": 0.2, "small": 0.5, "medium": 0.8, "large": 0.97},
        contrast=CONTRASTS["kidney"],
    ),
    "pancreas": _Organ(
        shapes="pancreas",
        roughness={"tiny": (0.03, 0.18), "small": (0.03, 0.15), "medium": (0.03, 0.14), "large": (0.02, 0.10)},
        roughness_grain_mm=_GRAINS_MM,
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
        ratios = SHAPES[kind.shapes][size].axis_ratios(rng) ** _SOFTENING[size]
        semi_axes = radius * ratios / np.prod(ratios) ** (1 / 3)
        exophytic = rng.random() < kind.exophytic[size]
        core = rng.random() < look.core
        # Fat gives way without being seen to.
        mass_effect = rng.random() < look.mass_effect and not exophytic
        capsule = rng.random() < look.capsule
        return TumorSpec(
            organ=organ,
            size_class=size,
            centre_mm=(0.0, 0.0, 0.0),
            semi_axes_mm=tuple(float(value) for value in semi_axes),
            rotation=random_rotation(rng),
            deformation_mm=radius * uniform(rng, look.deformation),
            background_hu=statistics.parenchyma_hu,
            contrast_hu=self._draw_contrast_hu(
                kind.contrast, size, statistics, radius_mm=radius, edge_blur_mm=edge_blur_mm, rng=rng
            ),
            texture_sd_hu=uniform(rng, look.texture_sd_hu),
            texture_grain_mm=uniform(rng, look.texture_grain_mm),
            texture_blur_mm=0.6,
            edge_blur_mm=edge_blur_mm,
            seed=draw_seed(rng),
            roughness=uniform(rng, kind.roughness[size]),
            roughness_grain_mm=uniform(rng, kind.roughness_grain_mm[size]),
            exophytic=bool(exophytic),
            noise_sd_hu=statistics.noise.sd_hu,
            noise_correlation=statistics.noise.correlation,
            core_size=uniform(rng, (0.4, 0.7)) if core else 0.0,
            core_contrast_hu=uniform(rng, (-30.0, -10.0)) if core else 0.0,
            capsule_hu=uniform(rng, (30.0, 80.0)) if capsule else 0.0,
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
