"""Benign lesions that look like tumors and get no label: hard negatives.

Simple cysts are round, sharply bounded and of water's intensity; haemangiomas fill with contrast agent from their
border inwards, unevenly.
"""

import numpy as np

from nnunet_difftumor.synthesis.look.preset import SizeDistribution, draw_seed, random_rotation, uniform
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.spec import TumorSpec

SIZES = {
    "tiny": SizeDistribution((2.8, 4.7), (1, 1)),
    "small": SizeDistribution((5.3, 9.4), (1, 1)),
    "medium": SizeDistribution((10.5, 17.0), (1, 1)),
}
_WEIGHTS = (0.4, 0.4, 0.2)
_AXIS_SPREAD = {"cyst": 0.1, "haemangioma": 0.2}
_WATER_HU = (0.0, 20.0)


def draw_look_alike(organ: str, *, statistics: OrganStatistics, rng: np.random.Generator) -> TumorSpec:
    """A cyst, or in the liver also a haemangioma, with its centre at the origin."""
    kind = "haemangioma" if "liver" in organ.lower() and rng.random() < 0.4 else "cyst"
    size = list(SIZES)[int(rng.choice(len(SIZES), p=_WEIGHTS))]
    radius = SIZES[size].draw_radius_mm(rng)
    spread = _AXIS_SPREAD[kind]
    common = {
        "organ": organ,
        "size_class": size,
        "kind": kind,
        "centre_mm": (0.0, 0.0, 0.0),
        "semi_axes_mm": tuple(float(value) for value in radius * rng.uniform(1 - spread, 1 + spread, 3)),
        "rotation": random_rotation(rng),
        "background_hu": statistics.parenchyma_hu,
        "texture_blur_mm": 0.6,
        "noise_sd_hu": statistics.noise.sd_hu,
        "noise_correlation": statistics.noise.correlation,
        "seed": draw_seed(rng),
    }
    if kind == "cyst":
        return TumorSpec(
            **common,
            deformation_mm=radius * uniform(rng, (0.0, 0.03)),
            contrast_hu=uniform(rng, _WATER_HU) - statistics.parenchyma_hu,
            texture_sd_hu=0.0,
            texture_grain_mm=1.0,
            edge_blur_mm=uniform(rng, (0.5, 0.7)),
        )
    return TumorSpec(
        **common,
        deformation_mm=radius * uniform(rng, (0.03, 0.1)),
        contrast_hu=uniform(rng, (0.0, 30.0)),
        texture_sd_hu=uniform(rng, (8.0, 16.0)),
        texture_grain_mm=uniform(rng, (3.0, 5.0)),
        edge_blur_mm=uniform(rng, (0.6, 1.0)),
        core_size=uniform(rng, (0.5, 0.8)),
        core_contrast_hu=uniform(rng, (-80.0, -40.0)),
    )
