"""Axial slices of a part of a scan, as pages show them."""

from collections.abc import Sequence

import numpy as np

from nnunet_difftumor.pages import SliceStack
from nnunet_difftumor.synthesis.scans.planes import views
from nnunet_difftumor.synthesis.volume import Box

# More makes pages of many megabytes, which open slowly.
_MOST_SLICES, _MOST_PIXELS = 48, 288
_LEAST_FIELD_MM, _MARGIN_MM, _MARGIN_ACROSS_MM = 70.0, 18.0, 6.0


def axial_stack(
    title: str,
    before: np.ndarray,
    after: np.ndarray,
    *,
    region: Box,
    spacing_mm: Sequence[float],
    directions: np.ndarray,
    mask: np.ndarray | None = None,
    names: tuple[str, str] = ("before", "after"),
) -> SliceStack:
    """The slices of a region, of which every other one, row and column is left out as often as it takes.

    Args:
        title: of the figure.
        before, after: HU (z, y, x).
        region: what is shown; the slice in its middle first, with a mask the one with most of it.
        spacing_mm: voxel size, (z, y, x).
        directions: (3, 3), columns are the array axes z, y, x in RAS space.
        mask: boolean (z, y, x).
        names: of before and after.
    """
    view = views(directions)[0]
    steps = [
        -(-(part.stop - part.start) // (_MOST_SLICES if axis == view.fixed else _MOST_PIXELS))
        for axis, part in enumerate(region)
    ]
    thinned = tuple(slice(part.start, part.stop, step) for part, step in zip(region, steps, strict=True))
    numbers = view.numbers(thinned[view.fixed], before.shape)
    shown = view.stack((np.zeros(before.shape, bool) if mask is None else mask)[thinned])
    return SliceStack(
        title=title,
        before=view.stack(before[thinned]),
        after=view.stack(after[thinned]),
        mask=shown,
        spacing_mm=[spacing_mm[axis] * steps[axis] for axis in (view.fixed, view.down, view.right)],
        numbers=[number + 1 for number in numbers],
        first=len(numbers) // 2 if mask is None else int(shown.sum((1, 2)).argmax()),
        names=names,
    )


def around(box: Box, *, spacing_mm: Sequence[float], directions: np.ndarray, shape: Sequence[int]) -> Box:
    """A region around a tumor, with a margin, clipped to the scan; in the plane at least the least field."""
    across = views(directions)[0].fixed
    parts = []
    for axis, part in enumerate(box):
        extent_mm = (part.stop - part.start) * spacing_mm[axis]
        margin_mm = _MARGIN_ACROSS_MM if axis == across else max(_MARGIN_MM, (_LEAST_FIELD_MM - extent_mm) / 2)
        margin = -int(-margin_mm // spacing_mm[axis])
        parts.append(slice(max(part.start - margin, 0), min(part.stop + margin, shape[axis])))
    return parts[0], parts[1], parts[2]
