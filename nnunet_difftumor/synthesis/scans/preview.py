"""Pictures of synthetic tumors: three planes, before and after, with the contour of the mask."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.volume import Box, nearest_axes

WINDOW_HU = (-175.0, 250.0)
PLANES = ("axial", "coronal", "sagittal")
_FIELD_MM = 110.0


def draw_preview(
    path: str | Path,
    before: np.ndarray,
    after: np.ndarray,
    *,
    mask: np.ndarray,
    boxes: Sequence[Box],
    spacing_mm: Sequence[float],
    directions: np.ndarray,
    rows: int = 4,
) -> None:
    """Draws one row per tumor: three planes through its middle, each before and after, and the contour on the latter.

    Args:
        path: PNG file, written atomically.
        before, after: HU (z, y, x).
        mask: boolean (z, y, x) of all tumors.
        boxes: region of each tumor; the largest masks are drawn.
        spacing_mm: voxel size, (z, y, x).
        directions: (3, 3), columns are the array axes z, y, x in RAS space, so that pictures lie as radiologists see
            them: patient's right on the left, front at the top, head at the top.
        rows: at most this many tumors.
    """
    # Not pyplot: it would keep the figure, and choose a window system.
    from matplotlib.figure import Figure

    boxes = sorted(boxes, key=lambda box: -np.count_nonzero(mask[box]))[:rows]
    figure = Figure(figsize=(15, 2.6 * max(len(boxes), 1)), facecolor="black")
    axes = figure.subplots(max(len(boxes), 1), 6, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, box in zip(axes, boxes, strict=False):
        centre = _middle(mask, box)
        for plane, (name, view) in enumerate(zip(PLANES, views(directions), strict=True)):
            for image, axis, title in ((before, row[2 * plane], "before"), (after, row[2 * plane + 1], "after")):
                axis.imshow(
                    view(image, centre),
                    cmap="gray",
                    vmin=WINDOW_HU[0],
                    vmax=WINDOW_HU[1],
                    aspect=view.aspect(spacing_mm),
                    interpolation="nearest",
                )
                axis.set_title(f"{name}, {title}", color="white", fontsize=9)
                _zoom(axis, view, centre, spacing_mm)
            contour = view(mask, centre)
            if contour.any() and not contour.all():
                row[2 * plane + 1].contour(contour, levels=[0.5], colors=["#ff3030"], linewidths=0.8)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.92, wspace=0.02, hspace=0.12)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="black")


class View:
    """A plane: which array axis is fixed, which runs down and which to the right, and whether they are turned round."""

    def __init__(self, fixed: int, down: int, right: int, flip_down: bool, flip_right: bool) -> None:
        self.fixed, self.down, self.right = fixed, down, right
        self.flip_down, self.flip_right = flip_down, flip_right

    def __call__(self, image: np.ndarray, centre: Sequence[int]) -> np.ndarray:
        plane = np.moveaxis(image, (self.fixed, self.down, self.right), (0, 1, 2))[centre[self.fixed]]
        plane = plane[::-1] if self.flip_down else plane
        return plane[:, ::-1] if self.flip_right else plane

    def aspect(self, spacing_mm: Sequence[float]) -> float:
        return spacing_mm[self.down] / spacing_mm[self.right]

    def position(self, centre: Sequence[int], shape: Sequence[int]) -> tuple[float, float]:
        """Where the centre is in the plane: (down, right)."""
        down, right = centre[self.down], centre[self.right]
        return (
            shape[self.down] - 1 - down if self.flip_down else down,
            shape[self.right] - 1 - right if self.flip_right else right,
        )


def views(directions: np.ndarray) -> list[View]:
    """Axial, coronal, sagittal for any orientation: the array axis nearest to each patient axis, and its sense."""
    directions = np.asarray(directions, float)
    x, y, z = nearest_axes(directions)
    to_left = directions[0, x] < 0  # index grows towards the patient's left when the RAS component is negative
    to_front, to_head = directions[1, y] > 0, directions[2, z] > 0
    return [
        View(z, y, x, flip_down=to_front, flip_right=not to_left),
        View(y, z, x, flip_down=to_head, flip_right=not to_left),
        View(x, z, y, flip_down=to_head, flip_right=to_front),
    ]


def _middle(mask: np.ndarray, box: Box) -> list[int]:
    """The voxel of the mask nearest to its centre of mass; the middle of the box if the mask is empty."""
    inside = np.argwhere(mask[box])
    start = np.array([part.start for part in box])
    if not len(inside):
        return [(part.start + part.stop) // 2 for part in box]
    nearest = inside[np.argmin(((inside - inside.mean(0)) ** 2).sum(1))]
    return [int(value) for value in nearest + start]


def _zoom(axis, view: View, centre: Sequence[int], spacing_mm: Sequence[float]) -> None:
    image = axis.images[0].get_array()
    shape = [0, 0, 0]
    shape[view.down], shape[view.right] = image.shape
    down, right = view.position(centre, shape)
    half_down, half_right = (_FIELD_MM / 2 / spacing_mm[i] for i in (view.down, view.right))
    axis.set_xlim(right - half_right, right + half_right)
    axis.set_ylim(down + half_down, down - half_down)
    axis.set_facecolor("black")
