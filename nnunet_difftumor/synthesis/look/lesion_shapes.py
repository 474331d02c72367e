"""How real lesions are shaped: quantiles of what was measured on public masks, per organ and size.

Liver: 661 lesions of LiTS with slices of at most 1.25 mm, as cut out for ULS23. Kidney: 549 tumors of KiTS23, 10 mm or
more. Pancreas: 400 lesions of MSD Task07 and of Radboud's part of ULS23. Axes are those of the ellipsoid with equal
moments. Summary statistics only.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

LEVELS = (0.02, 0.10, 0.25, 0.50, 0.75, 0.90, 0.98)
_ENDS = (0.0, *LEVELS, 1.0)


class ShapeQuantiles(NamedTuple):
    """Quantiles of two axis ratios, at `LEVELS`; they hardly depend on each other.

    Attributes:
        middle_to_longest: elongation.
        shortest_to_middle: with it times the elongation being the flatness.
    """

    middle_to_longest: tuple[float, ...]
    shortest_to_middle: tuple[float, ...]

    def axis_ratios(self, rng: np.random.Generator) -> np.ndarray:
        """Draws three semi-axes relative to the longest, (3,), in descending order."""
        middle = _draw(self.middle_to_longest, rng)
        return np.array([1.0, middle, middle * _draw(self.shortest_to_middle, rng)])


def _draw(quantiles: tuple[float, ...], rng: np.random.Generator) -> float:
    return float(np.interp(rng.random(), _ENDS, (quantiles[0], *quantiles, quantiles[-1])))


_LIVER = {
    # Masks of one or two slices make the flattest tenth of the tiny and small ones: artefacts, left out.
    "tiny": ShapeQuantiles((0.46, 0.59, 0.69, 0.80, 0.87, 0.92, 0.96), (0.40, 0.48, 0.59, 0.76, 0.85, 0.91, 0.95)),
    "small": ShapeQuantiles((0.45, 0.55, 0.67, 0.79, 0.85, 0.91, 0.95), (0.36, 0.46, 0.61, 0.79, 0.88, 0.93, 0.97)),
    "medium": ShapeQuantiles((0.42, 0.57, 0.64, 0.80, 0.87, 0.92, 0.96), (0.35, 0.45, 0.58, 0.77, 0.86, 0.94, 0.98)),
    "large": ShapeQuantiles((0.48, 0.55, 0.63, 0.75, 0.85, 0.93, 0.97), (0.37, 0.48, 0.60, 0.76, 0.86, 0.90, 0.91)),
}
_KIDNEY_SMALL = ShapeQuantiles((0.57, 0.68, 0.77, 0.86, 0.91, 0.96, 0.98), (0.62, 0.69, 0.82, 0.89, 0.93, 0.95, 0.97))
_KIDNEY = {
    "tiny": _KIDNEY_SMALL,  # too few of them were measured
    "small": _KIDNEY_SMALL,
    "medium": ShapeQuantiles((0.56, 0.69, 0.80, 0.86, 0.92, 0.94, 0.97), (0.65, 0.78, 0.83, 0.89, 0.93, 0.95, 0.98)),
    "large": ShapeQuantiles((0.59, 0.69, 0.77, 0.84, 0.91, 0.95, 0.98), (0.71, 0.76, 0.82, 0.88, 0.93, 0.96, 0.99)),
}
_PANCREAS_SMALL = ShapeQuantiles((0.46, 0.59, 0.69, 0.78, 0.87, 0.92, 0.96), (0.56, 0.65, 0.72, 0.81, 0.86, 0.93, 0.97))
_PANCREAS = {
    "tiny": _PANCREAS_SMALL,  # too few of them were measured
    "small": _PANCREAS_SMALL,
    "medium": ShapeQuantiles((0.51, 0.60, 0.70, 0.78, 0.86, 0.92, 0.96), (0.58, 0.66, 0.74, 0.81, 0.88, 0.94, 0.97)),
    "large": ShapeQuantiles((0.66, 0.72, 0.77, 0.84, 0.91, 0.94, 0.98), (0.69, 0.76, 0.81, 0.84, 0.90, 0.93, 0.95)),
}
SHAPES: Mapping[str, Mapping[str, ShapeQuantiles]] = {"liver": _LIVER, "kidney": _KIDNEY, "pancreas": _PANCREAS}
