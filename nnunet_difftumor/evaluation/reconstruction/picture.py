"""Picture of a reconstruction: three planes, each as scan, reconstruction and difference."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor import picture_style as style
from nnunet_difftumor.synthesis.scans.planes import views

_PANEL_PX, _GAP, _LABELS, _HEAD = 360, 6, 26, 64


def draw_reconstruction(
    path: str | Path,
    scan_hu: np.ndarray,
    made_hu: np.ndarray,
    *,
    window_hu: tuple[float, float],
    centre: Sequence[int],
    spacing_mm: Sequence[float],
    directions: np.ndarray,
    title: str,
) -> None:
    """Draws the three planes through a voxel, as radiologists see them.

    Args:
        path: PNG file, written atomically.
        scan_hu, made_hu: (z, y, x); the difference is the second minus the first, shown up to a quarter of the window.
        window_hu: black and white.
        centre: index of the voxel, (z, y, x).
        spacing_mm: voxel size, (z, y, x).
        directions: (3, 3), columns are the array axes z, y, x in RAS space.
        title: above the picture.
    """
    most = (window_hu[1] - window_hu[0]) / 4
    images = (
        (scan_hu, f"scan, {style.window_text(window_hu)}", "gray", window_hu),
        (made_hu, "reconstruction, same window", "gray", window_hu),
        (made_hu - scan_hu, f"difference, blue {-most:.0f} to red {most:.0f} HU", "RdBu_r", (-most, most)),
    )
    width, height = _LABELS + 3 * (_PANEL_PX + _GAP), _HEAD + 3 * (_PANEL_PX + _GAP)
    with style.sheet(width, height, path) as figure:
        style.write(figure, _GAP, 8, title, size=style.TITLE, bold=True)
        for row, view in enumerate(views(directions)):
            top = _HEAD + row * (_PANEL_PX + _GAP)
            style.write(figure, _GAP, top + _PANEL_PX / 2, f"{view.name}, through the middle", upright=True)
            pixel_mm = view.pixel_mm(spacing_mm)
            for column, (image, what, colours, limits_hu) in enumerate(images):
                left = _LABELS + column * (_PANEL_PX + _GAP)
                if row == 0:
                    style.write(figure, left, 40, what)
                axes = style.panel(figure, left, top, width_px=_PANEL_PX, height_px=_PANEL_PX)
                plane = view.stack(image)[view.place(centre, image.shape)[0]]
                style.show(axes, plane, pixel_mm, window_hu=limits_hu, colours=colours)
                style.scale_bar(axes)
                style.side_marks(axes, view.sides)
