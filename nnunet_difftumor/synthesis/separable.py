"""Separable interpolation, one small sparse matrix per axis, and means over cells of voxels.

Not by dense products: a BLAS library adds in another order with another number of threads, and the same spec would
give other bits in a data loader's worker than in the main process.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array


def along_axes(field: np.ndarray, matrices: Sequence[csr_array]) -> np.ndarray:
    """Applies a matrix along each of the last n axes of a field.

    Args:
        field: float32 of n axes, or of one more before them.
        matrices: n float32 matrices, (new size, old size of that axis).

    Returns:
        float32, C-contiguous, of the new sizes.
    """
    if field.ndim > len(matrices):
        field = np.moveaxis(field, 0, -1)
    for matrix in matrices:
        rest = field.shape[1:]
        field = (matrix @ np.ascontiguousarray(field).reshape(field.shape[0], -1)).reshape(matrix.shape[0], *rest)
        # After as many turns as there are matrices, the axes stand in their old order.
        field = np.moveaxis(field, 0, -1)
    return np.ascontiguousarray(field)


def cell_mean(array: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """Mean over cells of `step` voxels; cells that stick out at the upper end average the voxels that exist."""
    for axis, n in enumerate(step):
        if n == 1:
            continue
        starts = np.arange(0, array.shape[axis], n)
        counts = np.diff(np.append(starts, array.shape[axis])).astype(np.float32)
        full = array.shape[axis] // n
        view = np.moveaxis(array, axis, 0)
        total = view[0 : full * n : n].copy()
        for offset in range(1, n):
            total += view[offset : full * n : n]
        if full < len(starts):
            total = np.concatenate([total, view[full * n :].sum(0, keepdims=True)])
        array = np.moveaxis(total / counts.reshape(-1, 1, 1), 0, axis)
    return array


def between_cells(size: int, step: int) -> csr_array:
    """Linear interpolation from the centres of cells of `step` voxels to the voxels, float32 (size, cells).

    Before the first and beyond the last centre their values continue.
    """
    count = -(-size // step)
    place = np.clip((np.arange(size, dtype=np.float32) - (step - 1) / 2) / step, 0, count - 1)
    lower = np.minimum(place.astype(np.int32), max(count - 2, 0))
    upper = np.minimum(lower + 1, count - 1)
    share = (place - lower).astype(np.float32)
    values, columns = np.stack([1 - share, share], 1), np.stack([lower, upper], 1)
    rows = np.arange(0, 2 * size + 1, 2, dtype=np.int32)
    return csr_array((values.ravel(), columns.ravel(), rows), (size, count))
