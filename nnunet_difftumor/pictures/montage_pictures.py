"""Draws the montage of training samples, as a radiologist sees slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_difftumor import picture_style as style

_PANEL_PX, _GAP, _LABELS, _HEAD, _TITLES = 250, 6, 30, 52, 24
# Points; titles of cells have little room.
_SMALL = 9.5


@dataclass(frozen=True)
class Panel:
    """An axial slice without and with a tumor.

    Attributes:
        before, after: HU (row, column).
        contour: boolean (row, column), the tumor labels.
        pixel_mm: size of a pixel, (down, right).
        field_mm: edge of the square that is shown.
    """

    before: np.ndarray
    after: np.ndarray
    contour: np.ndarray
    pixel_mm: tuple[float, float]
    field_mm: float


@dataclass(frozen=True)
class Cell:
    """A place in the montage: titles above the two pictures, or a text instead of them."""

    title: str
    subtitle: str
    panel: Panel | None
    text: str = ""


def draw_montage(path: str | Path, title: str, rows: Sequence[tuple[str, Sequence[Cell]]]) -> None:
    """Draws labelled rows of cells; all pictures have the HU window of the training.

    Args:
        path: PNG file, written atomically.
        title: of the whole picture.
        rows: (label, cells).
    """
    columns = max(len(cells) for _, cells in rows)
    cell_width, row_height = 2 * (_PANEL_PX + _GAP) + _GAP, _TITLES + _PANEL_PX + _GAP
    width, height = _LABELS + columns * cell_width, _HEAD + len(rows) * row_height
    note = f"axial, before and after; {style.window_text(style.WINDOW_HU)}; R right, L left, A front, P back"
    with style.sheet(width, height, path) as figure:
        style.write(figure, 6, 6, title, size=style.TITLE, bold=True)
        style.write(figure, 6, 28, note, colour=style.FAINT_TEXT)
        for row, (label, cells) in enumerate(rows):
            top = _HEAD + row * row_height
            style.write(figure, 6, top + _TITLES + _PANEL_PX / 2, label, upright=True, bold=True)
            for column, cell in enumerate(cells):
                left = _LABELS + column * cell_width
                style.write(figure, left, top + 4, cell.title, size=_SMALL)
                if cell.panel is None:
                    place = (left, top + _TITLES + _PANEL_PX / 2)
                    style.write(figure, *place, cell.text, colour=style.WARNING, va="center")
                    continue
                after = left + _PANEL_PX + _GAP
                style.write(figure, after, top + 4, cell.subtitle, size=_SMALL)
                panel = cell.panel
                for place, image in ((left, panel.before), (after, panel.after)):
                    axes = style.panel(figure, place, top + _TITLES, width_px=_PANEL_PX, height_px=_PANEL_PX)
                    style.show(axes, image, panel.pixel_mm, field_mm=panel.field_mm)
                    style.scale_bar(axes)
                    style.side_marks(axes, "RLAP")
                style.outline(axes, panel.contour, panel.pixel_mm)
