"""The control of experiments: the tumors of `realistic`, at the same places and with the same masks, looking wrong.

A network that is trained on them gets as many masks of the same shapes as one that is trained on `realistic`. What the
latter does better is due to how its tumors look, and not to more labels, more crops onto the organ, or their shapes.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from nnunet_difftumor.synthesis.look.realistic import REALISTIC, RealisticPreset
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.spec import TumorSpec


@dataclass(frozen=True)
class PlaceboPreset(RealisticPreset):
    """As bright as a tumor is dark, and even: no noise, no texture, no core, no capsule."""

    def draw(self, organ: str, size: str, *, statistics: OrganStatistics, rng: np.random.Generator) -> TumorSpec:
        spec = super().draw(organ, size, statistics=statistics, rng=rng)
        # What decides the mask stays: shape, growth, mass effect; and so does the number of random draws.
        return replace(
            spec,
            contrast_hu=-spec.contrast_hu,
            texture_sd_hu=0.0,
            noise_sd_hu=0.0,
            noise_correlation=(0.0, 0.0, 0.0),
            core_size=0.0,
            core_contrast_hu=0.0,
            capsule_hu=0.0,
            capsule_mm=0.0,
        )


PLACEBO = PlaceboPreset(**{field.name: getattr(REALISTIC, field.name) for field in fields(REALISTIC)})
