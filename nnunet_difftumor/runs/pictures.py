"""Pictures of training samples as the network gets them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_difftumor import picture_style as style
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.synthesis.scans.planes import views

_PANEL_PX, _GAP, _HEAD, _TITLE = 330, 6, 56, 48
_NOTE = (
    "planes as before augmentation, which has turned, scaled and, where mirror_axes say so, mirrored the samples: "
    "no sides are marked"
)


@dataclass(frozen=True, eq=False)
class Sample:
    """A training sample.

    Attributes:
        title: above its pictures.
        data: normalized (c, z, y, x).
        target: (c, z, y, x), labels or one channel per region.
        direction: float (3, 3), its columns the directions of the array's axes in RAS+ space, before augmentation;
            None: not known.
    """

    title: str
    data: np.ndarray
    target: np.ndarray
    direction: np.ndarray | None


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
    samples: Sequence[Sample],
    *,
    intensity: CTIntensity,
    spacing_mm: Sequence[float],
    tumor_labels: Sequence[int],
    regions: Sequence[Sequence[int]] | None,
) -> None:
    """Draws the slice with most of the tumors in each plane, whole, with their outline.

    Args:
        path: PNG file, written atomically.
        samples: at least one.
        intensity: of the plans.
        spacing_mm: voxel size, (z, y, x).
        tumor_labels: label values to outline.
        regions: label values of each channel of region-based targets.
    """
    height = _HEAD + len(samples) * (_TITLE + _PANEL_PX + _GAP)
    with style.sheet(3 * (_PANEL_PX + _GAP) + _GAP, height, path) as figure:
        title = f"Training samples as the network gets them, {style.window_text(style.WINDOW_HU)}"
        style.write(figure, _GAP, 6, title, size=style.TITLE, bold=True)
        style.write(figure, _GAP, 30, _NOTE, size=9, colour=style.FAINT_TEXT)
        for row, sample in enumerate(samples):
            top = _HEAD + row * (_TITLE + _PANEL_PX + _GAP)
            style.write(figure, _GAP, top + 4, sample.title, bold=True)
            hu, mask = intensity.to_hu(sample.data[0]), tumor_in_target(sample.target, tumor_labels, regions)
            for column, view in enumerate(views(np.eye(3) if sample.direction is None else sample.direction)):
                left = _GAP + column * (_PANEL_PX + _GAP)
                slices = view.stack(mask)
                number = int(slices.sum((1, 2)).argmax())
                index = view.numbers(slice(None), mask.shape)[number]
                name = f"axis {view.fixed}" if sample.direction is None else view.name
                style.write(figure, left, top + 24, f"{name}, slice {index + 1} of {len(slices)}")
                axes = style.panel(figure, left, top + _TITLE, width_px=_PANEL_PX, height_px=_PANEL_PX)
                pixel_mm = view.pixel_mm(spacing_mm)
                style.show(axes, view.stack(hu)[number], pixel_mm)
                style.outline(axes, slices[number], pixel_mm)
                style.scale_bar(axes)
