"""Where a tumor may be: its organ, or the wall of a hollow one, and for one that grows out of it the fat around."""

from collections.abc import Sequence

import edt
import numpy as np

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.separable import along_axes, between_cells, cell_mean
from nnunet_difftumor.synthesis.shape.wall import enclosed_in, fat_in, is_fat, wall_in
from nnunet_difftumor.synthesis.spec import TumorSpec

# Smooth room is looked for in cells of about this size, or in voxels that are larger.
_CELL_MM = 1.8
_RIM_MM = 2.5
# What is darker than fat is lung or gas, whose border with soft tissue looks like fat; what is so bright is bone.
_DARK_HU, _BONE_HU = -200.0, 220.0
_DARK_GAP_MM, _BONE_GAP_MM = 2.5, 1.5


def room_of(
    hu: np.ndarray, labels: np.ndarray, spec: TumorSpec, *, organ: Organ, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (z, y, x): the organ, and for exophytic tumors also fat that no label claims; never the lumen of a hollow
    organ, unless the spec says so.

    Args:
        hu: (z, y, x).
        labels: integer (z, y, x); 0 is nothing in particular.
        spec: the tumor.
        organ: which labels are the organ.
        spacing_mm: voxel size, (z, y, x).
    """
    hollow = spec.wall_mm > 0
    inside = (
        organ.mask(labels)
        if hollow and spec.fills_lumen
        else tissue_of(hu, labels, wall_mm=spec.wall_mm, organ=organ, spacing_mm=spacing_mm)
    )
    if not spec.exophytic or not inside.size:
        return inside
    free = labels == 0
    if spec.growth_radius_mm > 0:
        return (inside | free) & _smooth_room(hu, inside, free, spec.growth_radius_mm, spacing_mm)
    if hollow:
        free &= ~enclosed_in(hu, organ.whole(labels), spacing_mm=spacing_mm)
    fat = free & fat_in(hu, spacing_mm)
    return inside | fat | _rim(inside, fat, free, spacing_mm)


def tissue_of(
    hu: np.ndarray, labels: np.ndarray, *, wall_mm: float, organ: Organ, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (z, y, x): healthy tissue of the organ, which of a hollow one is its wall.

    Args:
        hu: (z, y, x).
        labels: integer (z, y, x).
        wall_mm: of the wall; 0 for a solid organ.
        organ: which labels are the organ.
        spacing_mm: voxel size, (z, y, x).
    """
    mask = organ.mask(labels)
    if not wall_mm:
        return mask
    return wall_in(hu, mask, organ.whole(labels), wall_mm=wall_mm, spacing_mm=spacing_mm)


def room_of_cells(mean_hu: np.ndarray, organ: np.ndarray, free: np.ndarray, cell_mm: Sequence[float]) -> np.ndarray:
    """Boolean (cz, cy, cx): organ and fat, at a distance from lung, gas and bone.

    Args:
        mean_hu: (cz, cy, cx), means over cells of voxels, which know no noise and no strands.
        organ: boolean (cz, cy, cx).
        free: boolean (cz, cy, cx), what no label claims.
        cell_mm: size of a cell, (z, y, x).
    """
    fat = free & is_fat(mean_hu)
    room = organ | fat | _rim(organ, fat, free, cell_mm)
    half_cell = float(np.linalg.norm(cell_mm)) / 2
    for barrier, gap_mm in ((mean_hu < _DARK_HU, _DARK_GAP_MM), (free & (mean_hu > _BONE_HU), _BONE_GAP_MM)):
        room &= ~_close_to(barrier, gap_mm + half_cell, cell_mm)
    return room


def _smooth_room(
    hu: np.ndarray, inside: np.ndarray, free: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Boolean (z, y, x): where a ball of that radius can be within organ and fat.

    It may stand in the organ too: fat that is a thin layer on it counts. Cells become voxels by interpolating the
    distance to the border, which leaves no steps.
    """
    step = tuple(max(1, round(_CELL_MM / size)) for size in spacing_mm)
    cell_mm = np.multiply(step, spacing_mm)
    # A cell that is half of each is organ.
    organ, open_cells = (cell_mean(mask.astype(np.float32), step) >= 0.5 for mask in (inside, free))
    room = room_of_cells(cell_mean(hu, step), organ, open_cells, cell_mm)
    if room.all():
        return np.ones(hu.shape, bool)
    room &= _close_to(_depth_mm(room, cell_mm) > radius_mm, radius_mm, cell_mm)
    depth = _depth_mm(room, cell_mm) - _depth_mm(~room, cell_mm)
    return along_axes(depth, [between_cells(size, n) for size, n in zip(hu.shape, step, strict=True)]) > 0


def _rim(inside: np.ndarray, fat: np.ndarray, free: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Between organ and fat lies a rim of mixed intensities, which is neither."""
    rim_mm = max(_RIM_MM, 1.5 * min(spacing_mm))
    return free & _close_to(inside, rim_mm, spacing_mm) & _close_to(fat, rim_mm, spacing_mm)


def _close_to(mask: np.ndarray, reach_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    return _depth_mm(~mask, spacing_mm) <= reach_mm if mask.any() else mask


def _depth_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Float32 (z, y, x): from voxels of the mask to the nearest that is none of it; 0 beside it."""
    return edt.edt(mask, anisotropy=[float(size) for size in spacing_mm])
