"""Writes tumors into a scan in memory."""

from collections.abc import Sequence

import numpy as np

from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Renderer
from nnunet_difftumor.synthesis.shape.survey import region_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.visibility import check_reach
from nnunet_difftumor.synthesis.volume import ArrayVolume, Box, Volume


def patch_of(volume: Volume, spec: TumorSpec, organ: Organ, *, box: Box | None = None) -> Patch:
    """A region of the scan for a renderer; it may be empty if the tumor lies outside the scan.

    Args:
        volume: the scan.
        spec: the tumor.
        organ: which labels it may replace, and by which.
        box: what the renderer's `region` asks for; None: what the tumor may change, which is enough for a renderer
            without networks.
    """
    box = region_of(spec, volume.shape, volume.spacing_mm) if box is None else box
    return Patch(
        box, volume.hu(box), volume.labels(box), organ, volume.spacing_mm, tuple(volume.shape), volume.direction
    )


def insert_tumors(
    volume: ArrayVolume, specs: Sequence[TumorSpec], organ: Organ, *, renderer: Renderer | None = None
) -> list[RenderedTumor]:
    """Renders tumors one after the other and writes them into the scan and its label map, in place.

    Args:
        volume: `hu_array` must be float32; both arrays are changed.
        specs: the tumors; the same specs into the same scan give the same voxels.
        organ: which labels the tumors may replace, and by which. (Mass effect moves other labels too.)
        renderer: the one that the specs name; None: hand-crafted.

    Returns:
        What was rendered. A tumor of which nothing lies in the organ has an empty mask and changes nothing.

    Raises:
        InputError: as `rendered_in`.
    """
    rendered = []
    # One by one: a later tumor sees the earlier ones, and results do not depend on how many there are.
    for spec in specs:
        rendered.append(rendered_in(volume, spec, organ, renderer=renderer or HandcraftedRenderer()))
        write_tumor(volume, rendered[-1])
    return rendered


def rendered_in(volume: Volume, spec: TumorSpec, organ: Organ, *, renderer: Renderer) -> RenderedTumor:
    """A tumor as the renderer draws it into a scan, which stays as it is.

    Raises:
        InputError: if it changes voxels out of its reach.
    """
    patch = patch_of(volume, spec, organ, box=renderer.region(volume, spec))
    tumor = renderer.render([patch], [spec])[0]
    check_reach(tumor, volume)
    return tumor


def write_tumor(volume: ArrayVolume, tumor: RenderedTumor) -> None:
    """Writes a tumor into the scan that it was rendered into, and into its label map, in place."""
    volume.hu_array[tumor.box] = tumor.hu
    volume.label_array[tumor.box] = tumor.labels


def mask_of(rendered: Sequence[RenderedTumor], shape: Sequence[int]) -> np.ndarray:
    """Boolean (z, y, x): all tumors in one mask."""
    mask = np.zeros(shape, bool)
    for tumor in rendered:
        mask[tumor.box] |= tumor.mask
    return mask
