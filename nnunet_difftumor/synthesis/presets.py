"""Named sets of distributions from which tumors are drawn. Each says what it follows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.synthesis.organ import OrganStatistics

# Bands of equivalent diameter (of the ball with the tumor's volume), in mm; "early" is tiny and small (< 20 mm).
SIZE_BANDS_MM: Mapping[str, tuple[float, float]] = {
    "tiny": (5.0, 10.0),
    "small": (10.0, 20.0),
    "medium": (20.0, 40.0),
    "large": (40.0, 80.0),
}
SIZES = (*SIZE_BANDS_MM, "mix")


@dataclass(frozen=True)
class SizeDistribution:
    """How tumors of one size are drawn.

    Attributes:
        radius_mm: interval of the equivalent radius.
        axis_ratio: intervals of the middle and of the smallest semi-axis, relative to the largest; or None for
            semi-axes that vary independently by `axis_spread` around the radius.
        axis_spread: half-width of that variation, relative.
        deformation_mm: interval of the displacement's standard deviation.
        count: least and greatest number of tumors per scan.
    """

    radius_mm: tuple[float, float]
    deformation_mm: tuple[float, float]
    count: tuple[int, int]
    axis_ratio: tuple[tuple[float, float], tuple[float, float]] | None = None
    axis_spread: float = 0.0

    def semi_axes_mm(self, rng: np.random.Generator) -> np.ndarray:
        """Draws three semi-axes, (3,) in mm."""
        low, high = self.radius_mm
        # Logarithmic: among real lesions the smaller ones of a band are the more frequent ones.
        radius = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        if self.axis_ratio is None:
            return radius * rng.uniform(1 - self.axis_spread, 1 + self.axis_spread, 3)
        ratios = np.array([1.0, *(rng.uniform(*interval) for interval in self.axis_ratio)])
        return radius * ratios / np.prod(ratios) ** (1 / 3)


@dataclass(frozen=True)
class Preset:
    """Everything that is drawn for a tumor but its place.

    Attributes:
        sizes: per size class.
        weights: share of each size class in "mix".
        probability: share of training samples that get synthetic tumors.
        edge_blur_mm, grain_vox: intervals.
        texture_blur_vox: sigma_b.
        relative_contrast_hu: interval of the contrast to the tissue around the tumor; None: mu_t of Hu et al., Table 1.
        keep_noise_level: the texture has the scan's own standard deviation; if not, it loses what scaling up and
            blurring take away, as in Hu et al.
    """

    sizes: Mapping[str, SizeDistribution]
    weights: Mapping[str, float]
    probability: float
    edge_blur_mm: tuple[float, float]
    grain_vox: tuple[float, float]
    texture_blur_vox: float
    relative_contrast_hu: tuple[float, float] | None
    keep_noise_level: bool

    def contrast_hu(self, organ: OrganStatistics, rng: np.random.Generator) -> float:
        """Draws the tumor's mean relative to the tissue around it, or to the parenchyma where it follows Hu et al."""
        if self.relative_contrast_hu is not None:
            return float(rng.uniform(*self.relative_contrast_hu))
        # mu_t ~ U(30, mu_p - 10). Where the organ itself is near 30 HU (no contrast agent) that interval is empty or
        # turned round: then 10 to 25 HU below the organ.
        high = organ.parenchyma_hu - 10
        low = 30.0 if high - 30.0 >= 15 else high - 15
        return float(rng.uniform(low, high)) - organ.parenchyma_hu


def _hu2023_size(radius: float, deformation_mm: tuple[float, float], count: tuple[int, int]) -> SizeDistribution:
    """Table 6; the semi-axes vary by a quarter around the radius, as in the public code."""
    return SizeDistribution((radius, radius), deformation_mm, count, axis_spread=0.25)


_HU2023_SIZES = {
    "tiny": _hu2023_size(4, (0.5, 1), (3, 10)),
    "small": _hu2023_size(8, (1, 2), (3, 10)),
    "medium": _hu2023_size(16, (3, 6), (2, 5)),
    "large": _hu2023_size(32, (5, 10), (1, 3)),
}

PRESETS: Mapping[str, Preset] = {
    # Hu et al., CVPR 2023, Tables 1 and 6.
    "hu2023": Preset(
        sizes=_HU2023_SIZES,
        weights={"tiny": 0.25, "small": 0.25, "medium": 0.25, "large": 0.25},
        probability=0.9,
        edge_blur_mm=(0.6, 1.2),
        grain_vox=(1.1, 1.5),
        texture_blur_vox=0.6,
        relative_contrast_hu=None,
        keep_noise_level=False,
    ),
    # The mix of the public DiffTumor code (CVPR 2024; the paper does not give it), with the shapes of Table 6.
    "difftumor": Preset(
        sizes={
            "tiny": _hu2023_size(4, (0.5, 1), (1, 3)),
            "small": _hu2023_size(8, (1, 2), (1, 3)),
            "medium": _hu2023_size(16, (3, 6), (1, 1)),
            "large": _hu2023_size(32, (5, 10), (1, 1)),
        },
        weights={"tiny": 0.4, "small": 0.4, "medium": 0.1, "large": 0.1},
        probability=0.5,
        edge_blur_mm=(0.6, 1.2),
        grain_vox=(1.1, 1.5),
        texture_blur_vox=0.6,
        relative_contrast_hu=None,
        keep_noise_level=False,
    ),
    # Ours: sizes spread over the bands, flattened shapes, contrast relative to the tissue around, noise as in the scan.
    "realistic": Preset(
        sizes={
            "tiny": SizeDistribution((2.8, 4.7), (0.2, 0.5), (1, 3), axis_ratio=((0.7, 1.0), (0.45, 0.8))),
            "small": SizeDistribution((5.3, 9.4), (0.5, 1.2), (1, 3), axis_ratio=((0.65, 0.95), (0.45, 0.8))),
            "medium": SizeDistribution((10.5, 19.0), (1.0, 2.5), (1, 2), axis_ratio=((0.65, 0.95), (0.45, 0.8))),
            "large": SizeDistribution((21.0, 36.0), (2.0, 5.0), (1, 1), axis_ratio=((0.65, 0.95), (0.5, 0.8))),
        },
        weights={"tiny": 0.3, "small": 0.4, "medium": 0.2, "large": 0.1},
        probability=0.5,
        edge_blur_mm=(0.6, 1.2),
        grain_vox=(1.1, 1.5),
        texture_blur_vox=0.6,
        relative_contrast_hu=(-45.0, -15.0),
        keep_noise_level=True,
    ),
}
