"""What the preprocessed cases of a configuration have in common: voxel size, order of axes, and intensities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.prepared.orientation import directions


@dataclass(frozen=True)
class PreparedGrid:
    """How a preprocessed array becomes a scan in HU.

    Attributes:
        spacing_mm: voxel size, in the order of the array's axes.
        transpose_forward: of the plans: the axes (z, y, x) of the image in the order of the array's.
        intensity: of the plans.
    """

    spacing_mm: tuple[float, ...]
    transpose_forward: tuple[int, ...]
    intensity: CTIntensity

    @classmethod
    def from_plans(cls, plans: Mapping[str, Any], configuration: str) -> "PreparedGrid":
        """Reads the plans of one configuration.

        Raises:
            InputError: as `CTIntensity.from_plans`.
        """
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        intensity = CTIntensity.from_plans(plans, configuration)
        manager = PlansManager(dict(plans))
        spacing: Sequence[float] = manager.get_configuration(configuration).spacing
        return cls(tuple(float(size) for size in spacing), tuple(manager.transpose_forward), intensity)

    def direction(self, properties: Mapping[str, Any]) -> np.ndarray | None:
        """As in `Volume`, of a preprocessed case with these properties; None where its reader gives no geometry.

        Hand-crafted tumors do not need one, and whoever does says so.
        """
        try:
            return directions(properties, self.transpose_forward)
        except InputError:
            return None
