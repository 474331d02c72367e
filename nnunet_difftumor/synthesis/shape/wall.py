"""The wall of a hollow organ: in a mask of the whole organ with its lumen, or of the wall alone.

Tumors of bowel, stomach or bladder arise in the wall. A voxel is wall if its depth below the outer surface is at most
the wall's thickness; what is deeper, and gas at any depth, is lumen. Where the mask is that of the wall alone, the
lumen is what it encloses and that is not fat.
"""

from collections.abc import Sequence

import cc3d
import edt
import numpy as np
from scipy.ndimage import gaussian_filter

# Gas, also mixed with a neighbour within a voxel; in prepared datasets, whose HU are cut off there, it has -175.
_GAS_HU = -150.0
# The wall is compared with what is deeper where noise is suppressed by this many voxels.
_SMOOTHING_VOX = 0.8
# Of the voxels at a depth so many may look like lumen: where the wall is thinnest it must still be wall.
_LUMEN_SHARE = 0.1
# Contents that differ less from the wall are not told from it.
_LEAST_DIFFERENCE_HU = 15.0
_ENOUGH_VOXELS = 50
# The middle of what a wall encloses is farther from it than fat mixed with wall; less than this share of it is fat.
_MIDDLE_MM, _FAT_SHARE = 2.0, 0.3
_FAT_HU = (-170.0, -20.0)
_FAT_SMOOTHING_MM = 1.0


def wall_in(
    hu: np.ndarray, organ: np.ndarray, solid: np.ndarray, *, wall_mm: float, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (z, y, x): what of the organ's mask is its wall.

    Args:
        hu: (z, y, x).
        organ: boolean, the organ's mask.
        solid: boolean, the mask with the lesions in it, which do not make it thinner.
        wall_mm: thickness.
        spacing_mm: voxel size, (z, y, x).
    """
    return organ & (depth_mm(solid, spacing_mm) <= wall_mm) & (hu > _GAS_HU)


def depth_mm(solid: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance of voxels from the outer surface of a mask, float32; the end of the array is no surface."""
    spacing = [float(size) for size in spacing_mm]
    distance = edt.edt(np.ascontiguousarray(solid), anisotropy=spacing, black_border=False)
    return distance - np.float32(0.5 * min(spacing))


def measured_wall_mm(hu: np.ndarray, solid: np.ndarray, *, greatest_mm: float, spacing_mm: Sequence[float]) -> float:
    """How thick the wall is where it is thin: the depth from which on a tenth looks like what is in the lumen.

    Args:
        hu: float32 (z, y, x).
        solid: boolean, the organ's mask with the lesions in it.
        greatest_mm: what is measured is at most this, and this where the mask has no lumen, or one that looks like the
            wall.
        spacing_mm: voxel size, (z, y, x).

    Returns:
        Thickness in mm, at least that of a voxel.
    """
    voxel = float(min(spacing_mm))
    least = max(voxel, 1.0)
    depth = depth_mm(solid, spacing_mm)
    # Neither fat outside nor gas inside may be mixed into the wall by it.
    tissue = solid & (hu > _GAS_HU)
    weight = np.maximum(gaussian_filter(tissue.astype(np.float32), _SMOOTHING_VOX), np.float32(1e-3))
    smooth = np.where(tissue, gaussian_filter(np.where(tissue, hu, 0).astype(np.float32), _SMOOTHING_VOX) / weight, hu)
    lumen = smooth[solid & (depth > greatest_mm + voxel)]
    wall = smooth[solid & (depth > 0.7 * voxel) & (depth <= max(2.0, 1.5 * voxel))]
    if lumen.size < _ENOUGH_VOXELS or wall.size < _ENOUGH_VOXELS:
        return greatest_mm
    wall_hu = float(np.median(wall))
    contents = lumen[lumen > _GAS_HU]
    inside = solid & (depth > least - voxel / 2) & (depth <= greatest_mm)
    values, depths = smooth[inside], depth[inside]
    like_lumen = values < _GAS_HU
    if contents.size >= _ENOUGH_VOXELS:
        contents_hu = float(np.median(contents))
        between = (wall_hu + contents_hu) / 2
        if contents_hu < wall_hu - _LEAST_DIFFERENCE_HU:
            like_lumen |= values < between
        elif contents_hu > wall_hu + _LEAST_DIFFERENCE_HU:
            like_lumen |= values > between
    thickness = least
    while thickness + voxel / 2 <= greatest_mm:
        here = (depths > thickness) & (depths <= thickness + voxel / 2)
        if here.any() and like_lumen[here].mean() > _LUMEN_SHARE:
            break
        thickness += voxel / 2
    else:
        thickness = greatest_mm
    return max(least, thickness)


def enclosed_in(hu: np.ndarray, solid: np.ndarray, *, spacing_mm: Sequence[float]) -> np.ndarray:
    """Boolean (z, y, x): lumen beside the mask of a wall, none of it in the mask; also other tissue without fat.

    Args:
        hu: (z, y, x).
        solid: boolean, the mask with the lesions in it.
        spacing_mm: voxel size, (z, y, x).
    """
    spacing = [float(size) for size in spacing_mm]
    away = edt.edt(np.ascontiguousarray(~solid), anisotropy=spacing)
    reach = max(_MIDDLE_MM, 1.5 * min(spacing))
    pieces = cc3d.connected_components((away > reach).astype(np.uint8), connectivity=6)
    fat = fat_in(hu, spacing_mm)
    sizes = np.bincount(pieces.ravel())
    fats = np.bincount(pieces.ravel(), weights=fat.ravel())
    fats[0] = 0
    shares = fats / np.maximum(sizes, 1)
    closed = shares < _FAT_SHARE
    # Outside lie other organs too, but most of the fat.
    closed[[0, int(fats.argmax())]] = False
    if not closed.any():
        return np.zeros(solid.shape, bool)
    near = edt.edt(np.ascontiguousarray(~closed[pieces]), anisotropy=spacing) <= reach + min(spacing)
    return near & ~solid


def fat_in(hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Boolean (z, y, x): fat by its local mean: bowel, muscle and vessels are brighter, lung and bowel gas darker."""
    return is_fat(gaussian_filter(hu, _FAT_SMOOTHING_MM / np.asarray(spacing_mm)))


def is_fat(mean_hu: np.ndarray) -> np.ndarray:
    """Boolean of the same shape, of local means."""
    return (mean_hu > _FAT_HU[0]) & (mean_hu < _FAT_HU[1])


def is_too_thin(mask: np.ndarray) -> bool:
    """Whether most of a mask (z, y, x) is in no block of 2 x 2 x 2 voxels: thinner than two voxels."""
    blocks = mask
    for axis in range(3):
        view = np.moveaxis(blocks, axis, 0)
        blocks = np.moveaxis(view[1:] & view[:-1], 0, axis)
    covered = np.zeros(mask.shape, bool)
    for z, y, x in np.ndindex(2, 2, 2):
        part = tuple(slice(start, start + size) for start, size in zip((z, y, x), blocks.shape, strict=True))
        covered[part] |= blocks
    return np.count_nonzero(covered) * 2 < np.count_nonzero(mask)
