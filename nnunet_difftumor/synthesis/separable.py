"""Separable interpolation: one small sparse matrix per axis.

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
