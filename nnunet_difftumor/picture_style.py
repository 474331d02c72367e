"""What all pictures of CT have in common: colours and sizes of text, panels measured in mm, scale bars, marks of sides.

A panel's coordinates are mm from the middle of its image, to the right and down: voxels of any shape look right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.files import atomic_path

# Of the training; the pictures have it where they show what a network gets.
WINDOW_HU = (-175.0, 250.0)
TUMOR_COLOUR = "#ff3b30"
ORGAN_COLOURS = ("#30d0ff", "#ffd030", "#70ff70", "#c080ff")
BACKGROUND, TEXT, FAINT_TEXT, WARNING = "black", "white", "#b8b8b8", "#ffb030"
DPI = 100
# Points: a title, a label, a mark inside a panel. 72 points are `DPI` pixels.
TITLE, LABEL, MARK = 13.0, 10.5, 10.5
_TINT = 0.25
_POINTS = 6
_INSIDE_PX = 7
_BARS_MM = (2, 5, 10, 20, 50, 100)


@contextmanager
def sheet(width_px: float, height_px: float, path: str | Path | None = None) -> Iterator[Any]:
    """A figure of this size, black, in matplotlib's own style; with a path it is written there at the end, atomically.

    Without pyplot, which would keep the figure and choose a window system, and whatever others have set: nnU-Net's own
    picture leaves seaborn's style and a huge font behind.

    Args:
        width_px, height_px: in pixels.
        path: PNG file; None: the figure is not written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):
        figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, facecolor=BACKGROUND)
        yield figure
        if path is not None:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=DPI, facecolor=BACKGROUND, format="png")


def pixels(figure: Any) -> np.ndarray:
    """The figure as uint8 (rows, columns, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def panel(figure: Any, left_px: float, top_px: float, *, width_px: float, height_px: float) -> Any:
    """Axes at a place of a sheet, in pixels from its top left corner; nothing of them is seen but what is drawn."""
    width, height = figure.get_size_inches() * DPI
    place = (left_px / width, 1 - (top_px + height_px) / height, width_px / width, height_px / height)
    axes = figure.add_axes(place, facecolor=BACKGROUND)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def write(
    figure: Any,
    left_px: float,
    top_px: float,
    text: str,
    *,
    size: float = LABEL,
    colour: str = TEXT,
    bold: bool = False,
    upright: bool = False,
    **more: Any,
) -> None:
    """A text on a sheet, its top left corner at a place in pixels; `upright` ones run up from their bottom left."""
    width, height = figure.get_size_inches() * DPI
    figure.text(
        left_px / width,
        1 - top_px / height,
        text,
        size=size,
        color=colour,
        weight="bold" if bold else "normal",
        rotation=90 if upright else 0,
        **{"va": "center" if upright else "top", "ha": "left", **more},
    )


def legend(figure: Any, left_px: float, top_px: float, colours: Mapping[str, str]) -> None:
    """Names in their colours, in a line from a place in pixels on."""
    from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea

    width, height = figure.get_size_inches() * DPI
    words: list[Any] = [TextArea(name, textprops={"size": LABEL, "color": colour}) for name, colour in colours.items()]
    line = HPacker(children=words, pad=0, sep=12)
    place = (left_px / width, 1 - top_px / height)
    figure.add_artist(AnnotationBbox(line, place, xycoords="figure fraction", box_alignment=(0, 1), frameon=False))


def show(
    axes: Any,
    image: np.ndarray,
    pixel_mm: Sequence[float],
    *,
    window_hu: Sequence[float] = WINDOW_HU,
    field_mm: float | None = None,
    colours: str = "gray",
) -> None:
    """Draws an image, its middle in the middle of the panel, smoothly interpolated.

    Args:
        axes: of `panel`.
        image: float (down, right), HU.
        pixel_mm: size of a pixel, (down, right).
        window_hu: what is black, and what is white.
        field_mm: edge of the square of the image that is shown; None: all of it, with black beside it where the panel
            has another shape.
        colours: a colour map of matplotlib's.
    """
    high, wide = (size * mm for size, mm in zip(image.shape, pixel_mm, strict=True))
    axes.imshow(
        image,
        cmap=colours,
        vmin=window_hu[0],
        vmax=window_hu[1],
        extent=(-wide / 2, wide / 2, high / 2, -high / 2),
        interpolation="bicubic",
        aspect="equal",
    )
    if field_mm is None:
        place = axes.get_position(original=True)
        shape = place.width * axes.figure.get_figwidth() / (place.height * axes.figure.get_figheight())
        wide, high = max(wide, high * shape), max(high, wide / shape)
    else:
        wide, high = field_mm, field_mm
    axes.set_xlim(-wide / 2, wide / 2)
    axes.set_ylim(high / 2, -high / 2)


def outline(
    axes: Any, mask: np.ndarray, pixel_mm: Sequence[float], *, colour: str = TUMOR_COLOUR, tint: bool = False
) -> None:
    """Draws the edges of a mask's voxels over an image of the same shape (down, right); `tint` also colours them."""
    if not mask.any():
        return
    found = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    part = mask[tuple(slice(places[0], places[-1] + 1) for places in found)]
    # Contours run halfway between points: with several points per voxel they run along its edges.
    part = np.pad(part.repeat(_POINTS, 0).repeat(_POINTS, 1), 1).astype(float)
    down, right = (
        (places[0] - n / 2 + (np.arange(points) - 0.5) / _POINTS) * mm
        for places, n, points, mm in zip(found, mask.shape, part.shape, pixel_mm, strict=True)
    )
    if tint:
        axes.contourf(right, down, part, levels=[0.5, 1.5], colors=[colour], alpha=_TINT)
    axes.contour(right, down, part, levels=[0.5], colors=[colour], linewidths=1.2)


def scale_bar(axes: Any) -> float:
    """Draws a bar of a round length, at most a quarter of the panel, at its bottom left; returns the length in mm."""
    wide = abs(np.subtract(*axes.get_xlim()))
    length = max((mm for mm in _BARS_MM if mm <= wide / 4), default=_BARS_MM[0])
    (left, _), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    pixel = wide / (axes.get_position().width * axes.figure.get_figwidth() * DPI)
    start, level = left + _INSIDE_PX * pixel, bottom + math.copysign(_INSIDE_PX * pixel, top - bottom)
    axes.plot([start, start + length], [level, level], color=TEXT, linewidth=2.5, path_effects=_edged(2.5))
    _inside(axes, start, level, f"{length} mm", va="bottom", ha="left", xytext=(0, 3))
    return float(length)


def side_marks(axes: Any, sides: Sequence[str]) -> None:
    """Writes where left, right, top and bottom of a panel lie in the patient, for example R, L, A and P."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    middle = (left + right) / 2, (bottom + top) / 2
    places = (
        (left, middle[1], "left", "center", (_INSIDE_PX, 0)),
        (right, middle[1], "right", "center", (-_INSIDE_PX, 0)),
        (middle[0], top, "center", "top", (0, -_INSIDE_PX)),
        (middle[0], bottom, "center", "bottom", (0, _INSIDE_PX)),
    )
    for text, (across, down, ha, va, offset) in zip(sides, places, strict=True):
        _inside(axes, across, down, text, ha=ha, va=va, xytext=offset)


def window_text(window_hu: Sequence[float]) -> str:
    """Of a HU window, as pictures state it."""
    return f"window {window_hu[0]:.0f} to {window_hu[1]:.0f} HU"


def _inside(axes: Any, across: float, down: float, text: str, **more: Any) -> None:
    axes.annotate(
        text,
        (across, down),
        textcoords="offset pixels",
        size=MARK,
        color=TEXT,
        path_effects=_edged(0),
        annotation_clip=False,
        **more,
    )


def _edged(width: float) -> list[Any]:
    """Black around white: one of them is seen on any tissue."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width + 2.5, foreground=BACKGROUND)]
