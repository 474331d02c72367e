"""Pictures of training samples as the network gets them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.synthesis.scans.preview import WINDOW_HU


def tumor_in_target(
    target: np.ndarray, tumor_labels: Sequence[int], regions: Sequence[Sequence[int]] | None
) -> np.ndarray:
    """Boolean (z, y, x): tumor voxels of a target (c, z, y, x) of labels, or of one channel per region."""
    if regions is None:
        return np.isin(target[0], tumor_labels)
    mask = np.zeros(target.shape[1:], bool)
    for label in tumor_labels:
        channels = [(len(region), i) for i, region in enumerate(regions) if label in region]
        mask |= target[min(channels)[1]].astype(bool)
    return mask


def draw_samples(
    path: str | Path,
    samples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    intensity: CTIntensity,
    tumor_labels: Sequence[int],
    regions: Sequence[Sequence[int]] | None,
) -> None:
    """Draws the middle of the tumors along each array axis, with their contour.

    Args:
        path: PNG file, written atomically.
        samples: (title, data (c, z, y, x), target (c, z, y, x)).
        intensity: of the plans.
        tumor_labels: label values to outline.
        regions: label values of each channel of region-based targets.
    """
    # Not pyplot: it would keep the figure, and choose a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2 * len(samples)), facecolor="black")
    axes = figure.subplots(len(samples), 3, squeeze=False)
    for row, (title, data, target) in zip(axes, samples, strict=True):
        hu = intensity.to_hu(data[0])
        mask = tumor_in_target(target, tumor_labels, regions)
        for axis, panel in enumerate(row):
            others = tuple(other for other in range(3) if other != axis)
            middle = int(mask.sum(axis=others).argmax())
            panel.imshow(hu.take(middle, axis), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            contour = mask.take(middle, axis)
            if contour.any() and not contour.all():
                panel.contour(contour, levels=[0.5], colors=["#ff3030"], linewidths=0.8)
            panel.set_title(f"{title}, axis {axis}" if axis == 0 else f"axis {axis}", color="white", fontsize=8)
            panel.axis("off")
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, facecolor="black")
