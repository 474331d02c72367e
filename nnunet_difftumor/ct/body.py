"""Where the patient is in a scan: everything that is no air around, table or clothing."""

from collections.abc import Sequence

import cc3d
import numpy as np
from scipy.ndimage import binary_opening

from nnunet_difftumor.errors import InputError

# Between lung and fat; air around is near -1000.
_BODY_HU = -300.0
# The body is looked for in cells of about this size; what is thinner than twice this, such as a table, is none.
_CELL_MM = 4.0
_OPENING = np.ones((3, 3, 3), bool)
# A body has at least this volume: a head, a foot, or a few slices of a trunk.
_LEAST_ML = 50.0


def body_box(hu: np.ndarray, spacing_mm: Sequence[float]) -> tuple[slice, slice, slice]:
    """The box around the largest piece of tissue that is thicker than a table top.

    Args:
        hu: float (z, y, x), or any other order of axes.
        spacing_mm: voxel size in the order of the axes.

    Raises:
        InputError: if there is no body.
    """
    step = [max(1, round(_CELL_MM / size)) for size in spacing_mm]
    cells = hu[tuple(slice(n // 2, None, n) for n in step)] > _BODY_HU
    # Along axes of few cells there is nothing to open.
    opened = binary_opening(cells, _OPENING[tuple(slice(0, 3 if n >= 9 else 1) for n in cells.shape)])
    pieces = cc3d.connected_components(opened.astype(np.uint8), connectivity=6)
    sizes = np.bincount(pieces.ravel())[1:]
    cell_ml = float(np.prod(step) * np.prod(spacing_mm)) / 1000
    if not len(sizes) or sizes.max() * cell_ml < _LEAST_ML:
        raise InputError(f"no body is seen: no piece of {_LEAST_ML:g} ml has more than {_BODY_HU:g} HU")
    body = pieces == 1 + int(sizes.argmax())
    box = []
    for axis, (n, size) in enumerate(zip(step, hu.shape, strict=True)):
        present = np.flatnonzero(body.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, (int(present[0]) - 1) * n), min(size, (int(present[-1]) + 2) * n)))
    return box[0], box[1], box[2]
