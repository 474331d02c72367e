"""The scan's own noise: kept where a tumor replaces even tissue, and made alike where it replaces something else.

Noise is the scanner's, not the tissue's: what lies under a tumor has the right strength, grain and direction already.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import correlate1d, gaussian_filter

# What varies more slowly than this is tissue, not noise; a grid coarser than that is taken as it is.
SMOOTHING_MM = 2.0
# Tissue counts as even where its local mean differs from the organ's by less than this: the margin of vessels in
# equation 2 of Hu et al., CVPR 2023, and a little for the noise that is left.
EVEN_HU, EVEN_MM = 20.0, 1.0
# Small vessels stand out of the noise; they are cut off at this many standard deviations.
NOISE_CLIP = 3.0
# With fewer voxels of even tissue nothing is measured.
LEAST_VOXELS = 500
# Where Gaussians end, in standard deviations: earlier than scipy's 4, which costs nearly twice as much.
TRUNCATE = 2.5


class Noise(NamedTuple):
    """How a scan's noise looks.

    Attributes:
        sd_hu: standard deviation.
        correlation: of neighbouring voxels along z, y and x.
    """

    sd_hu: float
    correlation: tuple[float, float, float]


def even_tissue(hu: np.ndarray, organ: np.ndarray, spacing_mm: Sequence[float], *, around_hu: float) -> np.ndarray:
    """Boolean (z, y, x): organ without vessels, fat and lesions.

    Args:
        hu: (z, y, x).
        organ: boolean of the same shape.
        spacing_mm: voxel size, (z, y, x).
        around_hu: mean of the organ's tissue.
    """
    smooth = gaussian_filter(hu, EVEN_MM / np.asarray(spacing_mm), truncate=TRUNCATE)
    return organ & (np.abs(smooth - np.float32(around_hu)) < EVEN_HU)


def residual(hu: np.ndarray, even: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Noise of the even tissue, float32 (z, y, x) in HU: what its local mean leaves; 0 elsewhere.

    Args:
        hu: (z, y, x).
        even: boolean of the same shape.
        spacing_mm: voxel size, (z, y, x).
    """
    sigma = np.maximum(SMOOTHING_MM / np.asarray(spacing_mm), 1)
    weight = even.astype(np.float32)
    share = gaussian_filter(weight, sigma, truncate=TRUNCATE)
    mean = gaussian_filter(hu * weight, sigma, truncate=TRUNCATE) / np.maximum(share, np.float32(1e-3))
    return np.where(even, hu - mean, np.float32(0))


def measure_noise(hu: np.ndarray, even: np.ndarray, spacing_mm: Sequence[float]) -> Noise | None:
    """Measures noise in even tissue; None if there is too little of it.

    Args:
        hu: (z, y, x).
        even: boolean of the same shape.
        spacing_mm: voxel size, (z, y, x).
    """
    if np.count_nonzero(even) < LEAST_VOXELS:
        return None
    noise = residual(hu, even, spacing_mm)
    variance = float(np.square(noise[even]).mean(dtype=np.float64))
    if variance == 0:
        return Noise(0.0, (0.0, 0.0, 0.0))
    correlation = []
    for axis in range(3):
        one, other = (np.moveaxis(noise, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        both = np.moveaxis(even, axis, 0)[1:] & np.moveaxis(even, axis, 0)[:-1]
        product = float((one * other)[both].mean(dtype=np.float64)) if both.any() else 0.0
        correlation.append(product / variance)
    return Noise(variance**0.5, tuple(correlation))


def noise_like(noise: Noise, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Noise of that strength and correlation, float32 of the given (z, y, x) shape."""
    field = rng.standard_normal(shape, dtype=np.float32)
    for axis, correlation in enumerate(noise.correlation):
        # The weights (a, 1, a) correlate neighbours by 2 a / (1 + 2 a^2), at most by 1 / sqrt(2).
        wanted = float(np.clip(correlation, -0.7, 0.7))
        if abs(wanted) > 1e-3:
            a = (1 - np.sqrt(1 - 2 * wanted**2)) / (2 * wanted)
            weights = np.array([a, 1, a]) / np.sqrt(1 + 2 * a**2)
            field = correlate1d(field, weights, axis=axis, mode="wrap")
    return field * np.float32(noise.sd_hu)


def noise_under(
    hu: np.ndarray,
    organ: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    around_hu: float,
    noise: Noise,
    rng: np.random.Generator,
) -> np.ndarray:
    """The noise that a tumor in this region is to have, float32 (z, y, x) in HU.

    Args:
        hu: of the region before the tumor.
        organ: boolean of the same shape.
        spacing_mm: voxel size, (z, y, x).
        around_hu: mean of the organ's tissue.
        noise: of the scan; for places that are no even tissue (vessels, and what is outside the organ).
        rng: source of that noise.
    """
    even = even_tissue(hu, organ, spacing_mm, around_hu=around_hu)
    limit = np.float32(NOISE_CLIP * noise.sd_hu)
    own = np.clip(residual(hu, even, spacing_mm), -limit, limit)
    return np.where(even, own, noise_like(noise, hu.shape, rng))
