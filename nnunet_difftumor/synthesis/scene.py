"""Writes tumors into a scan in memory."""

from collections.abc import Sequence

import numpy as np

from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer, Patch, RenderedTumor
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.shape import region_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume, Volume


def patch_of(volume: Volume, spec: TumorSpec, organ: Organ) -> Patch:
    """The region of the scan that the tumor may change; its box may be empty if the tumor lies outside the scan."""
    box = region_of(spec, volume.shape, volume.spacing_mm)
    return Patch(box, volume.hu(box), volume.labels(box), organ, volume.spacing_mm)


def insert_tumors(volume: ArrayVolume, specs: Sequence[TumorSpec], organ: Organ) -> list[RenderedTumor]:
    """Renders tumors one after the other and writes them into the scan and its label map, in place.

    Args:
        volume: `hu_array` must be float32; both arrays are changed.
        specs: the tumors; the same specs into the same scan give the same voxels.
        organ: which labels the tumors may replace, and by which. (Mass effect moves other labels too.)

    Returns:
        What was rendered. A tumor of which nothing lies in the organ has an empty mask and changes nothing.
    """
    renderer = HandcraftedRenderer()
    rendered = []
    for spec in specs:
        tumor = renderer.render([patch_of(volume, spec, organ)], [spec])[0]
        volume.hu_array[tumor.box] = tumor.hu
        volume.label_array[tumor.box] = tumor.labels
        rendered.append(tumor)
    return rendered


def mask_of(rendered: Sequence[RenderedTumor], shape: Sequence[int]) -> np.ndarray:
    """Boolean (z, y, x): all tumors in one mask."""
    mask = np.zeros(shape, bool)
    for tumor in rendered:
        mask[tumor.box] |= tumor.mask
    return mask
