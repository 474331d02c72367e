"""The tumor's texture: Gaussian noise on a coarser grid, scaled up by cubic interpolation and blurred.

Hu et al., CVPR 2023, section 3.1 (eta, sigma_b). Interpolation and blur are both separable and linear, so that one
small matrix per axis does both. The interpolation is cubic convolution (Keys 1981, a = -1/2), or a cubic spline as in
the paper, which leaves 8 % more of the noise's standard deviation: with a blur of 0.6 voxels and an eta of 1.1, 1.3 and
1.5 it is 0.36, 0.43 and 0.49 of the noise's against 0.33, 0.39 and 0.45.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

from nnunet_difftumor.synthesis.separable import along_axes


def grain_texture(
    shape: Sequence[int],
    rng: np.random.Generator,
    *,
    grain_vox: Sequence[float],
    blur_vox: Sequence[float],
    spline: bool = False,
) -> np.ndarray:
    """Gaussian texture of standard deviation 1 (expected) and mean 0 (expected), float32 of the given (z, y, x) shape.

    Args:
        shape: (z, y, x).
        rng: source of the noise.
        grain_vox: edge of a grain along each axis in voxels, >= 1.
        blur_vox: standard deviation of the blur along each axis in voxels, >= 0.
        spline: whether grains are interpolated by a cubic spline.
    """
    matrices = [
        _scaling_matrix(int(size), round(float(grain), 3), round(float(blur), 3), spline)
        for size, grain, blur in zip(shape, grain_vox, blur_vox, strict=True)
    ]
    field = rng.standard_normal([matrix.shape[1] for matrix in matrices], dtype=np.float32)
    return along_axes(field, matrices)


def attenuation(grain_vox: float, blur_vox: float, *, spline: bool = False) -> float:
    """Standard deviation of white noise of 1 after scaling up by `grain_vox` and blurring by `blur_vox`, in 3D."""
    matrix = _raw_matrix(64, grain_vox, blur_vox, spline)[24:40]
    return float(np.sqrt((matrix**2).sum(1).mean()) ** 3)


# Weights of a spline become less by a factor of 0.27 from grain to grain.
_SPLINE_REACH, _SPLINE_LEAST = 8, 1e-5


@lru_cache(maxsize=64)
def _scaling_matrix(size: int, grain_vox: float, blur_vox: float, spline: bool) -> csr_array:
    """(size, coarse) float32 with rows of unit norm: noise of standard deviation 1 stays so at every voxel."""
    matrix = _raw_matrix(size, grain_vox, blur_vox, spline)
    return csr_array((matrix / np.sqrt((matrix**2).sum(1, keepdims=True))).astype(np.float32))


def _raw_matrix(size: int, grain_vox: float, blur_vox: float, spline: bool) -> np.ndarray:
    pad = int(np.ceil(4 * blur_vox)) + 1
    position = np.arange(-pad, size + pad) / grain_vox
    # A spline is made of all grains, but of those far away next to nothing.
    reach = _SPLINE_REACH if spline else 1
    first, last = int(np.floor(position[0])) - reach, int(np.ceil(position[-1])) + reach
    distance = np.abs(position[:, None] - np.arange(first, last + 1))
    if spline:
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = (2 - distance) ** 3 / 6
    else:
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    matrix = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    if spline:
        # Coefficients whose spline passes through the grains.
        count = last - first + 1
        passes = (4 * np.eye(count) + np.eye(count, k=1) + np.eye(count, k=-1)) / 6
        matrix = np.linalg.solve(passes.T, matrix.T).T
        matrix[np.abs(matrix) < _SPLINE_LEAST] = 0
    if blur_vox > 0:
        matrix = gaussian_filter1d(matrix, blur_vox, axis=0, mode="nearest")
    return matrix[pad : pad + size]
