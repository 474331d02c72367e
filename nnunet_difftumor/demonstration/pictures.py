"""Draws test cases with the true labels and those predicted before and after training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor import picture_style as style

_PANEL_PX, _GAP, _HEAD, _TITLE = 420, 6, 34, 28


def draw_predictions(
    path: Path,
    cases: Sequence[tuple[str, Path, Mapping[str, Path]]],
    *,
    labels: Mapping[str, int],
    tumor_labels: Sequence[int],
) -> None:
    """Draws a row per case: the axial slice with most tumor in it, with the contours of each label map.

    Args:
        path: PNG file, written atomically.
        cases: (name, CT file, label map files by title); the first label map is the truth and chooses the slice.
        labels: label values by name.
        tumor_labels: those of them that are drawn in red; where the truth has none, any label chooses the slice.
    """
    organs = [value for value in labels.values() if value not in tumor_labels]
    colours = {value: style.ORGAN_COLOURS[i % len(style.ORGAN_COLOURS)] for i, value in enumerate(organs)}
    colours |= dict.fromkeys(tumor_labels, style.TUMOR_COLOUR)
    names = {value: name for name, value in labels.items()}
    columns, row_height = len(cases[0][2]), _TITLE + _PANEL_PX + _GAP
    with style.sheet(columns * (_PANEL_PX + _GAP) + _GAP, _HEAD + len(cases) * row_height, path) as figure:
        note = f"axial, {style.window_text(style.WINDOW_HU)}"
        style.write(figure, _GAP, 8, note, colour=style.FAINT_TEXT)
        style.legend(figure, _PANEL_PX + 2 * _GAP, 8, {names[value]: colour for value, colour in colours.items()})
        for row, (name, ct, maps) in enumerate(cases):
            hu, zooms = _canonical(ct)
            loaded = {title: np.rint(_canonical(file)[0]) for title, file in maps.items()}
            truth = next(iter(loaded.values()))
            wanted = np.isin(truth, tumor_labels)
            z = int((wanted if wanted.any() else truth > 0).sum((0, 1)).argmax())
            pixel_mm = zooms[1], zooms[0]
            for column, (title, label_map) in enumerate(loaded.items()):
                left, top = _GAP + column * (_PANEL_PX + _GAP), _HEAD + row * row_height
                style.write(figure, left, top + 5, f"{name}, slice {z + 1} of {hu.shape[2]}: {title}")
                axes = style.panel(figure, left, top + _TITLE, width_px=_PANEL_PX, height_px=_PANEL_PX)
                style.show(axes, _as_seen(hu[..., z]), pixel_mm)
                for value, colour in colours.items():
                    style.outline(axes, _as_seen(label_map[..., z] == value), pixel_mm, colour=colour)
                style.scale_bar(axes)
                style.side_marks(axes, "RLAP")


def _canonical(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels (x, y, z) that run to the right, the front and the head; voxel sizes in mm."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, np.float32), image.header.get_zooms()[:3]


def _as_seen(plane: np.ndarray) -> np.ndarray:
    """(x, y) as radiologists see it: the patient's right on the left, the front at the top."""
    return plane[::-1, ::-1].T
