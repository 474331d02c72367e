"""A scan and its labels on a coarse grid of the patient's own axes, on which looking at a whole case is quick."""

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from scipy.ndimage import affine_transform

# Voxel size of the coarse grid.
GRID_MM = 4.0
# What lies beyond says nothing about soft tissue, and would dominate means.
RANGE_HU = (-250.0, 350.0)


def coarse_hu(hu: np.ndarray, affine: np.ndarray, *, range_hu: tuple[float, float] = RANGE_HU) -> np.ndarray:
    """The scan, averaged over blocks: float32 (z, y, x), axes to superior, anterior and right, voxels of 4 mm.

    Args:
        hu: (z, y, x), HU.
        affine: 4 x 4, from indices (x, y, z) to RAS+ mm; axes are taken for those of the patient that are nearest.
        range_hu: to which values are cut before.
    """
    values, factors, spacing_mm = _turned(hu, affine)
    values = _block_means(np.clip(values, *range_hu), factors)
    if np.allclose(spacing_mm, GRID_MM, rtol=0.02):
        return values
    size = _sizes(values.shape, spacing_mm)
    # A voxel is a point here: positions go from the centre of the first block.
    return affine_transform(values, GRID_MM / spacing_mm, output_shape=size, order=1, mode="nearest")


def coarse_labels(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The label map on the grid of `coarse_hu`: the label at each voxel's centre."""
    values, factors, spacing_mm = _turned(labels, affine)
    blocks = [n // factor for n, factor in zip(values.shape, factors, strict=True)]
    values = values[tuple(slice(f // 2, f * n, f) for n, f in zip(blocks, factors, strict=True))]
    if np.allclose(spacing_mm, GRID_MM, rtol=0.02):
        return np.ascontiguousarray(values)
    sizes = _sizes(values.shape, spacing_mm)
    places = [
        np.minimum(np.rint(np.arange(size) * GRID_MM / step).astype(int), n - 1)
        for size, step, n in zip(sizes, spacing_mm, values.shape, strict=True)
    ]
    return values[np.ix_(*places)]


def _turned(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, list[int], np.ndarray]:
    """The array with the patient's axes; voxels of each in a block; and the block's size in mm."""
    orientation = io_orientation(affine)
    turned = apply_orientation(array.T, orientation).T
    spacing_mm = np.empty(3)
    for axis, step in zip(orientation[:, 0].astype(int), np.linalg.norm(affine[:3, :3], axis=0), strict=True):
        spacing_mm[2 - axis] = step
    factors = [max(1, int(GRID_MM / step + 1e-6)) for step in spacing_mm]
    return turned, factors, spacing_mm * factors


def _block_means(values: np.ndarray, factors: list[int]) -> np.ndarray:
    for axis in (2, 1, 0):
        factor, n = factors[axis], values.shape[axis] // factors[axis]
        cut = values[(slice(None),) * axis + (slice(0, n * factor),)]
        shape = (*cut.shape[:axis], n, factor, *cut.shape[axis + 1 :])
        values = cut.reshape(shape).mean(axis=axis + 1, dtype=np.float32) if factor > 1 else cut
    return values.astype(np.float32, copy=False)


def _sizes(shape: tuple[int, ...], spacing_mm: np.ndarray) -> list[int]:
    return [int((n - 1) * step / GRID_MM) + 1 for n, step in zip(shape, spacing_mm, strict=True)]
