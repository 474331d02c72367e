"""An animation through the axial slices of a scan with tumors: before and after side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor import picture_style as style
from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.scans.planes import views
from nnunet_difftumor.synthesis.scans.preview import ShownTumor
from nnunet_difftumor.synthesis.volume import Box, clipped_box

SWEEP = "sweep.gif"
_MARGIN_MM = 12.0
_MOST_FRAMES, _FRAMES_PER_S = 80, 8
# Of a picture: the longer edge, and the least width, which the title needs.
_EDGE_PX, _LEAST_WIDE_PX, _GAP_PX, _HEAD_PX = 384, 300, 6, 50


def sweep_scan(
    path: str | Path,
    before: np.ndarray,
    after: np.ndarray,
    *,
    tumors: Sequence[ShownTumor],
    spacing_mm: Sequence[float],
    directions: np.ndarray,
) -> None:
    """Writes the animation of a scan's tumors; the arguments are those of `draw_previews`."""
    box = box_around([tumor.box for tumor in tumors], before.shape, spacing_mm)
    mask = np.zeros(before.shape, bool)
    for tumor in tumors:
        mask[tumor.box] |= tumor.mask
    view = views(directions)[0]
    numbers = view.numbers(box[view.fixed], before.shape)
    animate_sweep(
        path,
        [f"axial, slice {number + 1} of {before.shape[view.fixed]}" for number in numbers],
        [_texts_in(tumors, view.fixed, number) for number in numbers],
        *(view.stack(image[box]) for image in (before, after)),
        mask=view.stack(mask[box]),
        pixel_mm=view.pixel_mm(spacing_mm),
        window_hu=tumors[0].window_hu(),
    )


def box_around(boxes: Sequence[Box], shape: Sequence[int], spacing_mm: Sequence[float]) -> Box:
    """The region of a scan of this shape with all boxes (at least one), and a margin."""
    margin = np.ceil(np.divide(_MARGIN_MM, spacing_mm))
    lower = np.min([[part.start for part in box] for box in boxes], 0) - margin
    upper = np.max([[part.stop for part in box] for box in boxes], 0) + margin
    return clipped_box(lower, upper, shape)


def animate_sweep(
    path: str | Path,
    titles: Sequence[str],
    notes: Sequence[str],
    before: np.ndarray,
    after: np.ndarray,
    *,
    mask: np.ndarray,
    pixel_mm: Sequence[float],
    window_hu: Sequence[float],
) -> None:
    """Writes an animated GIF through slices: before, and after with the outline of the mask.

    Args:
        path: GIF file, written atomically.
        titles, notes: two lines above each slice.
        before, after: HU (slice, down, right).
        mask: boolean of the same shape.
        pixel_mm: size of a pixel, (down, right).
        window_hu: what is black, and what is white.
    """
    from matplotlib.animation import PillowWriter

    step = -(-len(before) // _MOST_FRAMES)
    high, wide = (size * mm for size, mm in zip(before.shape[1:], pixel_mm, strict=True))
    scale = _EDGE_PX / max(high, wide)
    place = {"width_px": max(wide * scale, _LEAST_WIDE_PX), "height_px": high * scale}
    width, height = 2 * place["width_px"] + 3 * _GAP_PX, place["height_px"] + _HEAD_PX + _GAP_PX
    with style.sheet(width, height) as figure, atomic_path(path) as temporary:
        writer = PillowWriter(fps=_FRAMES_PER_S)
        with writer.saving(figure, str(temporary), dpi=style.DPI):
            for number in range(0, len(before), step):
                figure.clear()
                style.write(figure, _GAP_PX, 4, f"before, {titles[number]}")
                style.write(figure, 2 * _GAP_PX + place["width_px"], 4, f"after, {style.window_text(window_hu)}")
                style.write(figure, _GAP_PX, 26, notes[number], colour=style.FAINT_TEXT)
                for column, image in enumerate((before, after)):
                    left = _GAP_PX + column * (place["width_px"] + _GAP_PX)
                    axes = style.panel(figure, left, _HEAD_PX, **place)
                    style.show(axes, image[number], pixel_mm, window_hu=window_hu)
                    style.scale_bar(axes)
                    style.side_marks(axes, "RLAP")
                style.outline(axes, mask[number], pixel_mm)
                writer.grab_frame(facecolor=style.BACKGROUND)


def _texts_in(tumors: Sequence[ShownTumor], axis: int, number: int) -> str:
    """What is said of the tumors that a slice meets."""
    met = []
    for tumor in tumors:
        inside = number - tumor.box[axis].start
        if 0 <= inside < tumor.mask.shape[axis] and tumor.mask.take(inside, axis).any():
            met.append(tumor.text)
    # There is room for three; of more, the numbers.
    return ", ".join(met if len(met) <= 3 else (text.split()[0] for text in met))
