"""Resampling and filters as products with small matrices, one for each axis: the same on a CPU and on a GPU.

A GPU takes one product for each axis of a whole batch. On a CPU most of a band matrix would be products with 0: there
its rows are taken in blocks, each with the columns that it needs.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

Matrices = Sequence[torch.Tensor]

# On a CPU; fewer rows have less to multiply with 0, and more calls.
_ROWS = 24


def along_axes(field: torch.Tensor, matrices: Matrices, out: torch.Tensor | None = None) -> torch.Tensor:
    """Applies matrices along the axes z, y and x.

    Args:
        field: float32 (b, z, y, x).
        matrices: three float32 (b, new size, old size).
        out: contiguous, where the result goes.

    Returns:
        float32, contiguous, of the new sizes.
    """
    if out is None:
        out = field.new_empty(len(field), *(matrix.shape[1] for matrix in matrices))
    if _blocked(field):
        return _in_blocks(field, matrices, out)
    for matrix in matrices[:2]:
        # The first axis becomes the last: after three turns they stand as before, and nothing has been copied.
        *rest, size = *field.shape[2:], matrix.shape[1]
        field = (field.flatten(2).mT @ matrix.mT).view(-1, *rest, size)
    torch.bmm(field.flatten(2).mT, matrices[2].mT, out=out.flatten(1, 2))
    return out


def interpolated(field: torch.Tensor, matrices: Matrices) -> torch.Tensor:
    """`along_axes` for matrices of linear interpolation, whose rows have up to two neighbouring values.

    On a CPU with the same bits as `NetworkGrid.to_network`, one product after the other: what the networks see decides
    which codes they choose, and a difference in its last bit can choose another.
    """
    if not _blocked(field):
        return along_axes(field, matrices)
    made = [_by_taps(*sample) for sample in zip(field, *matrices, strict=True)]
    return made[0][None] if len(made) == 1 else torch.stack(made)


def _by_taps(field: torch.Tensor, *matrices: torch.Tensor) -> torch.Tensor:
    given = field
    for axis, matrix in enumerate(matrices):
        rows, last = torch.arange(len(matrix)), matrix.shape[1] - 1
        lower = (matrix != 0).to(torch.uint8).argmax(1)
        upper = (lower + 1).clamp(max=last)
        weights = matrix[rows, lower], torch.where(upper > lower, matrix[rows, upper], 0)
        if len(matrix) > last and not weights[1].any() and weights[0].eq(1).all() and lower.equal(rows):
            continue  # voxel by voxel the same grid
        shape = [-1 if axis == other else 1 for other in range(3)]
        one, other = (
            field.index_select(axis, index).mul_(weight.view(shape))
            for index, weight in zip((lower, upper), weights, strict=True)
        )
        field = one.add_(other)
    # Never the memory that was given: it may be written into.
    return field.clone() if field is given else field


def _blocked(field: torch.Tensor) -> bool:
    return not field.is_cuda


def _in_blocks(field: torch.Tensor, matrices: Matrices, out: torch.Tensor) -> torch.Tensor:
    for volume, along_z, along_y, along_x, made in zip(field, *matrices, out, strict=True):
        z_blocks, y_blocks, x_blocks = map(_blocks, (along_z, along_y, along_x))
        for z, of_z in z_blocks:
            # Through all three products at once: it stays in the cache.
            slab = (along_z[z, of_z] @ volume[of_z].flatten(1)).view(-1, *volume.shape[1:])
            narrow = slab.new_empty(len(slab), len(along_y), slab.shape[2])
            for y, of_y in y_blocks:
                narrow[:, y] = along_y[y, of_y] @ slab[:, of_y]
            rows, target = narrow.flatten(0, 1), made[z].flatten(0, 1)
            for x, of_x in x_blocks:
                torch.mm(rows[:, of_x], along_x[x, of_x].mT, out=target[:, x])
    return out


def _blocks(matrix: torch.Tensor) -> list[tuple[slice, slice]]:
    """Rows, and the columns outside of which they are 0."""
    found, blocks = matrix.numpy(), []
    for first in range(0, len(found), _ROWS):
        used = np.flatnonzero(found[first : first + _ROWS].any(0))
        columns = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        blocks.append((slice(first, first + _ROWS), columns))
    return blocks


@lru_cache(maxsize=512)
def gaussian_matrix(size: int, sigma: float, truncate: float) -> np.ndarray:
    """`scipy.ndimage.gaussian_filter1d` as a matrix, float32 (size, size), read-only; the rim is mirrored."""
    made = gaussian_filter1d(np.eye(size), sigma, axis=0, truncate=truncate).astype(np.float32)
    made.flags.writeable = False
    return made


@lru_cache(maxsize=256)
def neighbours_matrix(size: int) -> np.ndarray:
    """Sum of the two neighbours of each voxel, float32 (size, size), read-only; the ends are neighbours."""
    made = (np.roll(np.eye(size), 1, axis=0) + np.roll(np.eye(size), -1, axis=0)).astype(np.float32)
    made.flags.writeable = False
    return made
