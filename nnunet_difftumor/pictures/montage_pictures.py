"""Draws the montage of training samples, and an animation through one of them, as a radiologist sees slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.scans.preview import WINDOW_HU

_RED = "#ff3030"
_BAR_MM = 20.0
_MOST_FRAMES = 80


class AxialView:
    """Turns arrays of any orientation to (slice, row, column): towards the head, the back, and the patient's left.

    Args:
        directions: (3, 3), columns are the array axes in RAS space.
        spacing_mm: voxel size, in the order of the array's axes.

    Attributes:
        slice_axis: the array axis that runs along the patient.
        slice_mm: distance of slices.
        pixel_mm: size of a pixel, (down, right).
    """

    def __init__(self, directions: np.ndarray, spacing_mm: Sequence[float]) -> None:
        affine = np.eye(4)
        affine[:3, :3] = directions
        own = io_orientation(affine)
        self._turn = ornt_transform(own, axcodes2ornt(("S", "P", "L")))
        left_right, front_back, self.slice_axis = (int(axis) for axis in np.argsort(own[:, 0]))
        self.slice_mm = spacing_mm[self.slice_axis]
        self.pixel_mm = spacing_mm[front_back], spacing_mm[left_right]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return apply_orientation(array, self._turn)


@dataclass(frozen=True)
class Panel:
    """An axial slice without and with a tumor.

    Attributes:
        before, after: HU (row, column).
        contour: boolean (row, column), the tumor labels.
        pixel_mm: size of a pixel, (down, right).
    """

    before: np.ndarray
    after: np.ndarray
    contour: np.ndarray
    pixel_mm: tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """A place in the montage: titles above the two pictures, or a text instead of them."""

    title: str
    subtitle: str
    panel: Panel | None
    text: str = ""


def draw_montage(path: str | Path, title: str, rows: Sequence[tuple[str, Sequence[Cell]]]) -> None:
    """Draws labelled rows of cells; all pictures have the HU window of the training, and a bar of 20 mm.

    Args:
        path: PNG file, written atomically.
        title: of the whole picture.
        rows: (label, cells).
    """
    # Not pyplot: it would keep the figure, and choose a window system.
    from matplotlib.figure import Figure

    columns = max(len(cells) for _, cells in rows)
    width, height = 4.3 * columns + 0.4, 2.35 * len(rows) + 0.4
    figure = Figure(figsize=(width, height), facecolor="black")
    grid = figure.add_gridspec(
        len(rows), columns, left=0.4 / width, right=0.998, top=1 - 0.62 / height, bottom=0.004, hspace=0.16, wspace=0.04
    )
    note = f"window {WINDOW_HU[0]:.0f} to {WINDOW_HU[1]:.0f} HU; white bar {_BAR_MM:.0f} mm"
    figure.text(0.4 / width, 1 - 0.1 / height, f"{title}; {note}", color="white", fontsize=11, va="top")
    for row, (label, cells) in enumerate(rows):
        for column, cell in enumerate(cells):
            left, right = grid[row, column].subgridspec(1, 2, wspace=0.02).subplots()
            for axis in (left, right):
                axis.axis("off")
            left.set_title(cell.title, color="white", fontsize=8, loc="left")
            if cell.panel is None:
                left.text(0.0, 0.5, cell.text, color="#ffb030", fontsize=9, transform=left.transAxes, va="center")
            else:
                right.set_title(cell.subtitle, color="white", fontsize=8, loc="left")
                _show(left, cell.panel.before, cell.panel.pixel_mm)
                _show(right, cell.panel.after, cell.panel.pixel_mm)
                _outline(right, cell.panel.contour)
                _bar(left, cell.panel)
            if column == 0:
                left.text(
                    -0.05,
                    0.5,
                    label,
                    color="white",
                    fontsize=11,
                    rotation=90,
                    transform=left.transAxes,
                    ha="right",
                    va="center",
                )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="black")


def animate_sweep(
    path: str | Path, title: str, before: np.ndarray, after: np.ndarray, *, contour: np.ndarray, view: AxialView
) -> None:
    """Writes an animated GIF through the slices: before, and after with the contour.

    Args:
        path: GIF file, written atomically.
        title: above the pictures.
        before, after: HU (slice, row, column), as `view` turned them.
        contour: boolean of the same shape.
        view: gives the voxel size.
    """
    from matplotlib.animation import PillowWriter
    from matplotlib.figure import Figure

    step = -(-len(before) // _MOST_FRAMES)
    high, wide = (size * mm for size, mm in zip(before.shape[1:], view.pixel_mm, strict=True))
    figure = Figure(figsize=(10, 5 * high / wide + 0.4), facecolor="black")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.002, right=0.998, bottom=0.002, top=1 - 0.4 / (5 * high / wide + 0.4), wspace=0.01)
    with atomic_path(path) as temporary:
        writer = PillowWriter(fps=8)
        with writer.saving(figure, str(temporary), dpi=80):
            for number in range(0, len(before), step):
                for axis, image in ((left, before), (right, after)):
                    axis.clear()
                    axis.axis("off")
                    _show(axis, image[number], view.pixel_mm)
                _outline(right, contour[number])
                left.set_title(
                    f"{title}, slice at {number * view.slice_mm:.0f} mm", color="white", fontsize=9, loc="left"
                )
                writer.grab_frame(facecolor="black")


def _show(axis, image: np.ndarray, pixel_mm: tuple[float, float]) -> None:
    axis.imshow(
        image,
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        aspect=pixel_mm[0] / pixel_mm[1],
        interpolation="nearest",
    )


def _outline(axis, contour: np.ndarray) -> None:
    if contour.any() and not contour.all():
        axis.contour(contour, levels=[0.5], colors=[_RED], linewidths=0.7)


def _bar(axis, panel: Panel) -> None:
    rows, columns = panel.before.shape
    start = 0.05 * columns
    # Black below white: one of them is seen on any tissue.
    for colour, width in (("black", 4), ("white", 1.5)):
        axis.plot([start, start + _BAR_MM / panel.pixel_mm[1]], [0.95 * rows] * 2, color=colour, linewidth=width)
