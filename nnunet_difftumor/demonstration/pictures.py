"""Draws test cases with the true labels and those predicted before and after training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.scans.preview import WINDOW_HU

_TUMOR_COLOUR = "#ff3030"
_ORGAN_COLOURS = ("#30d0ff", "#ffd030", "#70ff70", "#c080ff")


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
    # Not pyplot: it would keep the figure, and choose a window system.
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    organs = [value for value in labels.values() if value not in tumor_labels]
    colours = {value: _ORGAN_COLOURS[i % len(_ORGAN_COLOURS)] for i, value in enumerate(organs)}
    colours |= dict.fromkeys(tumor_labels, _TUMOR_COLOUR)
    columns = len(cases[0][2])
    figure = Figure(figsize=(4.4 * columns, 3.6 * len(cases) + 0.5), facecolor="black")
    axes = figure.subplots(len(cases), columns, squeeze=False)
    for row, (name, ct, maps) in zip(axes, cases, strict=True):
        hu, zooms = _canonical(ct)
        loaded = {title: np.rint(_canonical(file)[0]) for title, file in maps.items()}
        truth = next(iter(loaded.values()))
        wanted = np.isin(truth, tumor_labels)
        z = int((wanted if wanted.any() else truth > 0).sum((0, 1)).argmax())
        for axis, (title, label_map) in zip(row, loaded.items(), strict=True):
            axis.axis("off")
            axis.imshow(
                _as_seen(hu[..., z]), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=zooms[1] / zooms[0]
            )
            for value, colour in colours.items():
                contour = _as_seen(label_map[..., z] == value)
                if contour.any() and not contour.all():
                    axis.contour(contour, levels=[0.5], colors=[colour], linewidths=1.0)
            axis.set_title(f"{name}: {title}", color="white", fontsize=9)
    names = {value: name for name, value in labels.items()}
    figure.legend(
        handles=[Line2D([], [], color=colour, label=names[value]) for value, colour in colours.items()],
        loc="lower center",
        ncols=len(colours),
        frameon=False,
        fontsize=10,  # nnU-Net's progress plot makes seaborn enlarge the fonts of everything that follows
        labelcolor="white",
    )
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.5 / figure.get_figheight(), top=0.94, wspace=0.02)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, facecolor="black")


def _canonical(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels (x, y, z) that run to the right, the front and the head; voxel sizes in mm."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, np.float32), image.header.get_zooms()[:3]


def _as_seen(plane: np.ndarray) -> np.ndarray:
    """(x, y) as radiologists see it: the patient's right on the left, the front at the top."""
    return plane[::-1, ::-1].T
