"""Between the preprocessed intensities of nnU-Net's CTNormalization and HU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.config import PLANS_NAME


@dataclass(frozen=True)
class CTIntensity:
    """nnU-Net's CT normalization: clip to the window, subtract the mean, divide by the standard deviation.

    Attributes:
        window_hu: least and greatest HU that survive preprocessing.
        mean_hu, sd_hu: of the dataset's foreground.
    """

    window_hu: tuple[float, float]
    mean_hu: float
    sd_hu: float

    @classmethod
    def from_plans(cls, plans: Mapping[str, Any], configuration: str) -> "CTIntensity":
        """Reads the plans of one configuration.

        Raises:
            InputError: if the configuration does not hold exactly one channel, normalized as CT.
        """
        # Configurations may inherit; the manager resolves that.
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        schemes = PlansManager(dict(plans)).get_configuration(configuration).normalization_schemes
        if list(schemes) != ["CTNormalization"]:
            raise InputError(
                f"plans {plans.get('plans_name')}: configuration {configuration} has normalization_schemes {schemes}, "
                'expected ["CTNormalization"]: synthetic tumors are made in HU. Name the channel "CT" in dataset.json '
                f"and run `difftumor prepare`, which writes the plans {PLANS_NAME}"
            )
        properties = plans["foreground_intensity_properties_per_channel"]["0"]
        window = float(properties["percentile_00_5"]), float(properties["percentile_99_5"])
        return cls(window, float(properties["mean"]), max(float(properties["std"]), 1e-8))

    def to_hu(self, normalized: np.ndarray) -> np.ndarray:
        """HU, float32; exact within 1e-5 HU inside the window."""
        return normalized.astype(np.float32, copy=False) * np.float32(self.sd_hu) + np.float32(self.mean_hu)

    def to_normalized(self, hu: np.ndarray) -> np.ndarray:
        """What nnU-Net's preprocessing makes of these HU, float32."""
        clipped = np.clip(hu, np.float32(self.window_hu[0]), np.float32(self.window_hu[1]))
        return ((clipped - np.float32(self.mean_hu)) / np.float32(self.sd_hu)).astype(np.float32, copy=False)
