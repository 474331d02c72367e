"""Pictures of the tumors in a scan: a block for each, three planes through it, before, after, and with the mask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor import picture_style as style
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.scans.manifest import tumor_text
from nnunet_difftumor.synthesis.scans.planes import views
from nnunet_difftumor.synthesis.volume import Box

TUMORS_PER_SHEET = 4
PANEL_PX = 330
# A tumor takes no more of its picture's edge than 1 in so many; edges that pictures have.
_ROOM, _FIELDS_MM = 2.5, (50.0, 80.0, 120.0, 160.0, 240.0)
# The window about the organ's tissue, so that tumors differ from it as much as they do on a reader's screen.
_WINDOW_WIDTH_HU = 250.0
_GAP, _MARGIN, _HEAD, _TITLES, _LABELS = 6, 16, 64, 60, 26
_COLUMNS = ("before", "after", "after, with the mask")
_NOTE = (
    "# as printed; mm: diameter of the ball of the same volume; HU: mean in the mask minus the organ around. "
    "Slices are counted\nfrom 1 as in the file. R right, L left, A front, P back, H head, F feet of the patient."
)


@dataclass(frozen=True, eq=False)
class ShownTumor:
    """What a picture says and shows of a tumor.

    Attributes:
        text: its number, size and contrast.
        background_hu: of the organ around it.
        box: its region in the scan.
        mask: boolean (z, y, x) of the box.
    """

    text: str
    background_hu: float
    box: Box
    mask: np.ndarray

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], rendered: Sequence[RenderedTumor]) -> "list[ShownTumor]":
        """The tumors of a manifest, numbered as `summary` numbers them."""
        return [
            cls(tumor_text(number, record), tumor.spec.background_hu, tumor.box, tumor.mask)
            for number, (record, tumor) in enumerate(zip(records, rendered, strict=True), 1)
        ]

    def middle(self) -> tuple[int, int, int]:
        """The voxel of the mask nearest to its centre of mass; the middle of the box if there is no mask."""
        inside = np.argwhere(self.mask)
        if not len(inside):
            return tuple((part.start + part.stop) // 2 for part in self.box)
        nearest = inside[np.argmin(((inside - inside.mean(0)) ** 2).sum(1))]
        return tuple(int(voxel) + part.start for voxel, part in zip(nearest, self.box, strict=True))

    def field_mm(self, spacing_mm: Sequence[float]) -> float:
        """Edge of the square that is shown of each plane."""
        inside = np.argwhere(self.mask)
        extent = float(((np.ptp(inside, axis=0) + 1) * spacing_mm).max()) if len(inside) else 0.0
        return next((field for field in _FIELDS_MM if field >= _ROOM * extent), _FIELDS_MM[-1])

    def window_hu(self) -> tuple[float, float]:
        """What is black, and what is white."""
        low = 10 * round((self.background_hu - _WINDOW_WIDTH_HU / 2) / 10)
        return float(low), low + _WINDOW_WIDTH_HU


def preview_names(tumors: int) -> list[str]:
    """File names of the sheets that so many tumors take."""
    sheets = max(1, -(-tumors // TUMORS_PER_SHEET))
    return ["preview.png", *(f"preview_{number}.png" for number in range(2, sheets + 1))]


def draw_previews(
    folder: str | Path,
    before: np.ndarray,
    after: np.ndarray,
    *,
    tumors: Sequence[ShownTumor],
    spacing_mm: Sequence[float],
    directions: np.ndarray,
) -> None:
    """Draws a block per tumor on `preview.png`, and what does not fit on `preview_2.png` and so on.

    Args:
        folder: for the PNG files (`preview_names`), each written atomically.
        before, after: HU (z, y, x).
        tumors: in the order of their numbers.
        spacing_mm: voxel size, (z, y, x).
        directions: (3, 3), columns are the array axes z, y, x in RAS space, so that pictures lie as radiologists see
            them: patient's right on the left, front at the top, head at the top.
    """
    names = preview_names(len(tumors))
    mask = np.zeros(before.shape, bool)
    for tumor in tumors:
        mask[tumor.box] |= tumor.mask
    block = _Block(before, after, mask, tuple(spacing_mm), np.asarray(directions))
    for number, name in enumerate(names, 1):
        shown = tumors[(number - 1) * TUMORS_PER_SHEET : number * TUMORS_PER_SHEET]
        columns = min(max(len(shown), 1), 2)
        rows = -(-max(len(shown), 1) // columns)
        width, height = columns * _Block.WIDTH + _MARGIN, rows * _Block.HEIGHT + _HEAD + _MARGIN
        with style.sheet(width, height, Path(folder) / name) as figure:
            title = "Synthetic tumors" + (f", sheet {number} of {len(names)}" if len(names) > 1 else "")
            style.write(figure, _MARGIN, 10, title, size=style.TITLE, bold=True)
            style.write(figure, _MARGIN, 32, _NOTE if shown else "No tumor.", colour=style.FAINT_TEXT)
            for place, tumor in enumerate(shown):
                row, column = divmod(place, columns)
                block.draw(figure, column * _Block.WIDTH + _MARGIN, row * _Block.HEIGHT + _HEAD, tumor)


@dataclass(frozen=True, eq=False)
class _Block:
    """Draws the panels of a tumor: a row per plane."""

    before: np.ndarray
    after: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, ...]
    directions: np.ndarray

    WIDTH = _LABELS + len(_COLUMNS) * (PANEL_PX + _GAP) + _MARGIN
    HEIGHT = _TITLES + 3 * (PANEL_PX + _GAP) + _MARGIN

    def draw(self, figure: Any, left: float, top: float, tumor: ShownTumor) -> None:
        voxel, field, window = tumor.middle(), tumor.field_mm(self.spacing_mm), tumor.window_hu()
        style.write(figure, left, top + 12, tumor.text, size=style.TITLE, bold=True)
        about = f"{style.window_text(window)}, field of view {field:.0f} mm"
        style.write(figure, left + self.WIDTH - _MARGIN - _GAP, top + 14, about, ha="right")
        for column, title in enumerate(_COLUMNS):
            style.write(figure, left + _LABELS + column * (PANEL_PX + _GAP), top + 40, title)
        for row, view in enumerate(views(self.directions)):
            down = top + _TITLES + row * (PANEL_PX + _GAP)
            label = f"{view.name}, slice {voxel[view.fixed] + 1} of {self.before.shape[view.fixed]}"
            style.write(figure, left, down + PANEL_PX / 2, label, upright=True)
            pixel_mm = view.pixel_mm(self.spacing_mm)
            where: dict[str, Any] = {"field_mm": field, "spacing_mm": self.spacing_mm}
            for axes, image in zip(_panels(figure, left + _LABELS, down), self._images(), strict=True):
                plane = view.around(image, voxel, outside=window[0], **where)
                style.show(axes, plane, pixel_mm, window_hu=window, field_mm=field)
                style.scale_bar(axes)
                style.side_marks(axes, view.sides)
            style.outline(axes, view.around(self.mask, voxel, outside=False, **where), pixel_mm, tint=True)

    def _images(self) -> tuple[np.ndarray, ...]:
        return self.before, self.after, self.after


def _panels(figure: Any, left: float, top: float) -> Iterator[Any]:
    for column in range(len(_COLUMNS)):
        yield style.panel(figure, left + column * (PANEL_PX + _GAP), top, width_px=PANEL_PX, height_px=PANEL_PX)
