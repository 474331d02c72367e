"""The picture of a validation: a row per crop, what is shown of it in labelled columns, enlarged."""

from collections.abc import Sequence

import numpy as np
import torch

from nnunet_difftumor import picture_style as style
from nnunet_difftumor.generative.weights import Volumes

# Screen pixels per voxel, and the least edge of a panel, which its title needs.
_LEAST_ENLARGED, _LEAST_EDGE_PX = 4, 200
_GAP, _HEAD = 6, 78


def validation_picture(pictures: torch.Tensor, columns: Sequence[str], *, volumes: Volumes, title: str) -> np.ndarray:
    """Draws axial slices.

    Args:
        pictures: float (rows, columns, h, w) in [-1, 1], as `middle_slices` turns them.
        columns: what each column shows.
        volumes: give the HU and the size of a voxel.
        title: above the picture.

    Returns:
        uint8 (rows, columns, 3).
    """
    rows, count, high, wide = pictures.shape
    low, most = volumes.window_hu
    hu = ((pictures.clamp(-1, 1) + 1) / 2 * (most - low) + low).numpy()
    _, across_mm, down_mm = volumes.spacing_mm
    enlarged = max(_LEAST_ENLARGED, -(-_LEAST_EDGE_PX // min(high, wide)))
    place = {"width_px": wide * enlarged, "height_px": high * enlarged * down_mm / across_mm}
    width, height = (count * (place["width_px"] + _GAP) + _GAP, _HEAD + rows * (place["height_px"] + _GAP))
    with style.sheet(max(width, _HEAD * 6), height) as figure:
        style.write(figure, _GAP, 6, title, size=style.TITLE, bold=True)
        note = f"axial, {style.window_text(volumes.window_hu)}, voxels {across_mm:g} mm"
        style.write(figure, _GAP, 30, note, colour=style.FAINT_TEXT)
        for column, name in enumerate(columns):
            left = _GAP + column * (place["width_px"] + _GAP)
            style.write(figure, left, 54, name)
            for row in range(rows):
                axes = style.panel(figure, left, _HEAD + row * (place["height_px"] + _GAP), **place)
                style.show(axes, hu[row, column], (down_mm, across_mm), window_hu=volumes.window_hu)
                style.scale_bar(axes)
                style.side_marks(axes, "RLAP")
        return style.pixels(figure)
