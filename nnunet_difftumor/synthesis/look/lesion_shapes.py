"""How real lesions are shaped, per organ and size: quantiles of what was measured on public masks, and what was fitted.

Liver: 661 lesions of LiTS with slices of at most 1.25 mm, as cut out for ULS23. Kidney: 549 tumors of KiTS23, 10 mm or
more. Pancreas: 400 lesions of MSD Task07 and of Radboud's part of ULS23. Axes are those of the ellipsoid with equal
moments. Summary statistics only.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Interval = tuple[float, float]

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
_QUANTILES: Mapping[str, Mapping[str, ShapeQuantiles]] = {"liver": _LIVER, "kidney": _KIDNEY, "pancreas": _PANCREAS}


class ShapeDistribution(NamedTuple):
    """How shapes of one organ and size are drawn; with u ~ U(0, 1), one for deformation and roughness:

    semi-axes 1, m^a, m^a s^b, with m and s drawn from the quantiles and (a, b) = `softening`;
    deformation / radius = low + (high - low) u^2, and roughness likewise; grain / radius ~ U(`grain`).

    Attributes:
        quantiles: of real axis ratios.
        softening: displacement and relief make shapes more elongated and flatter than their ellipsoid.
        deformation: sd of the displacement, relative to the radius.
        roughness: sd of the relief, relative to the semi-axes.
        grain: of the relief, relative to the radius.
    """

    quantiles: ShapeQuantiles
    softening: Interval
    deformation: Interval
    roughness: Interval
    grain: Interval

    def draw(self, rng: np.random.Generator, *, radius_mm: float) -> dict[str, Any]:
        """The fields of a `TumorSpec` that make its shape; the ellipsoid has the volume of a ball of that radius."""
        ratios = self.quantiles.axis_ratios(rng)
        middle, shortest = ratios[1], ratios[2] / ratios[1]
        middle, shortest = middle ** self.softening[0], shortest ** self.softening[1]
        ratios = np.array([1.0, middle, middle * shortest])
        # Many lesions are plain and a few are not: the lobed ones are the rough ones too.
        irregular = rng.random() ** 2
        return {
            "semi_axes_mm": tuple(float(value) for value in radius_mm * ratios / np.prod(ratios) ** (1 / 3)),
            "deformation_mm": radius_mm * _between(self.deformation, irregular),
            "roughness": _between(self.roughness, irregular),
            "roughness_grain_mm": radius_mm * float(rng.uniform(*self.grain)),
        }


def _between(interval: Interval, share: float) -> float:
    return float(interval[0] + (interval[1] - interval[0]) * share)


# Softening, deformation, roughness and grain were fitted together: rendered on grids like those of the real ones, they
# have their flatness, elongation, smoothed sphericity and solidity (benchmarks/realism.py).
_FITTED = {
    "liver": {
        "tiny": ((0.58, 1.30), (0.03, 0.17), (0.18, 0.31), (0.50, 0.55)),
        "small": ((0.66, 1.26), (0.04, 0.20), (0.13, 0.24), (0.40, 0.42)),
        "medium": ((0.84, 1.00), (0.00, 0.26), (0.125, 0.31), (0.38, 0.42)),
        "large": ((0.84, 0.88), (0.04, 0.20), (0.12, 0.30), (0.32, 0.37)),
    },
    "kidney": {
        "tiny": ((0.82, 0.72), (0.04, 0.07), (0.08, 0.165), (0.36, 0.40)),
        "small": ((0.82, 0.72), (0.04, 0.07), (0.08, 0.165), (0.36, 0.40)),
        "medium": ((0.58, 1.05), (0.04, 0.08), (0.07, 0.155), (0.30, 0.32)),
        "large": ((0.80, 0.80), (0.04, 0.06), (0.06, 0.155), (0.30, 0.34)),
    },
    "pancreas": {
        "tiny": ((0.83, 1.00), (0.11, 0.25), (0.08, 0.11), (0.40, 0.45)),
        "small": ((0.83, 1.00), (0.11, 0.25), (0.08, 0.11), (0.40, 0.45)),
        "medium": ((0.79, 0.68), (0.00, 0.26), (0.14, 0.265), (0.38, 0.50)),
        "large": ((0.40, 0.68), (0.03, 0.25), (0.13, 0.28), (0.42, 0.50)),
    },
}
SHAPES: Mapping[str, Mapping[str, ShapeDistribution]] = {
    organ: {size: ShapeDistribution(_QUANTILES[organ][size], *fitted) for size, fitted in sizes.items()}
    for organ, sizes in _FITTED.items()
}
