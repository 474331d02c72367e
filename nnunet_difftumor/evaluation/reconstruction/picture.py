"""Picture of a reconstruction: three planes, each as scan, reconstruction and difference."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.scans.preview import PLANES, views


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
    from matplotlib.figure import Figure

    most = (window_hu[1] - window_hu[0]) / 4
    figure = Figure(figsize=(11, 11), facecolor="black")
    images = (
        (scan_hu, "scan", {"cmap": "gray", "vmin": window_hu[0], "vmax": window_hu[1]}),
        (made_hu, "reconstruction", {"cmap": "gray", "vmin": window_hu[0], "vmax": window_hu[1]}),
        (
            made_hu - scan_hu,
            f"difference, {-most:.0f} to {most:.0f} HU",
            {"cmap": "RdBu_r", "vmin": -most, "vmax": most},
        ),
    )
    for row, name, view in zip(figure.subplots(3, 3), PLANES, views(directions), strict=True):
        for axis, (image, what, colours) in zip(row, images, strict=True):
            axis.imshow(view(image, centre), aspect=view.aspect(spacing_mm), interpolation="nearest", **colours)
            axis.set_title(f"{name}, {what}", color="white", fontsize=9)
            axis.axis("off")
    figure.suptitle(title, color="white", fontsize=11)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.93, wspace=0.03, hspace=0.1)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="black")
