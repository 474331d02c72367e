"""Tumors in a scan in memory: arrays in, arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.patch import RenderedTumor, Renderer
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.renderers import RendererChoice
from nnunet_difftumor.synthesis.scans.settings import SynthesisOptions, SynthesisSettings
from nnunet_difftumor.synthesis.scene import mask_of, rendered_in, write_tumor
from nnunet_difftumor.synthesis.spec import NoRoom, TumorSpec
from nnunet_difftumor.synthesis.visibility import too_faint
from nnunet_difftumor.synthesis.volume import ArrayVolume

# A tumor that is refused for its contrast is drawn again.
_DRAWS = 3


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A scan with synthetic tumors.

    Attributes:
        hu: float32 (z, y, x); voxels that no tumor reaches keep their value.
        labels: integer (z, y, x), the label map with the tumors' label where they are.
        mask: boolean (z, y, x), all tumors.
        specs: the tumors; the same specs in the same scan give the same voxels.
    """

    hu: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    specs: tuple[TumorSpec, ...]


def synthesize_arrays(
    hu: np.ndarray,
    labels: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    direction: np.ndarray | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    **options: Unpack[SynthesisOptions],
) -> SyntheticScan:
    """Puts synthetic tumors into a CT scan in memory; the arrays that are given stay as they are.

    Args:
        hu: (z, y, x), HU.
        labels: integer (z, y, x), with the organ.
        spacing_mm: voxel size, (z, y, x).
        direction: float (3, 3), its columns the unit vectors of the array's axes in RAS+ space; needed for diffusion.
        weights: folder of the diffusion models; None: `difftumor_weights` in the folder that nnUNet_results names.
        device: of the diffusion models, cpu or cuda.
        options: what to draw, see `SynthesisOptions`.

    Raises:
        InputError: for arrays that do not fit together, an organ that is not there or has no room for a single tumor,
            or diffusion models that are missing or do not fit.
    """
    settings = SynthesisSettings.of(options)
    choice = settings.choose_renderer(weights=weights, device=device)
    z, y, x = (float(size) for size in spacing_mm)
    hu, labels = np.array(hu, np.float32), np.array(labels)
    if labels.dtype.kind not in "iub":
        raise InputError(f"`labels` are {labels.dtype}, expected whole numbers")
    volume = ArrayVolume(hu, labels, (z, y, x), direction)
    organ = settings.organ_in(labels, "`labels`")
    volume = with_room_for_label(volume, organ)
    scene = draw_scene(volume, organ, settings, choice, where="`labels`")
    specs = tuple(tumor.spec for tumor in scene.rendered)
    return SyntheticScan(volume.hu_array, volume.label_array, mask_of(scene.rendered, volume.shape), specs)


@dataclass(frozen=True, eq=False)
class DrawnScene:
    """The tumors of a scan.

    Attributes:
        statistics: of the organ, before them.
        placed, rendered: the tumors.
        refused: why others are not there.
        renderer: that drew them.
    """

    statistics: OrganStatistics
    placed: list[Placement]
    rendered: list[RenderedTumor]
    refused: list[NoRoom]
    renderer: Renderer


def draw_scene(
    volume: ArrayVolume, organ: Organ, settings: SynthesisSettings, choice: RendererChoice, *, where: str | Path
) -> DrawnScene:
    """Measures the organ, draws tumors, finds them places and writes them into the scan, in place.

    Args:
        volume: the scan.
        organ: in it.
        settings: what to draw.
        choice: what draws.
        where: what holds the organ's mask, for messages.

    Raises:
        InputError: if there is no room for a single tumor, or none has the contrast that is asked for.
    """
    statistics = OrganStatistics.measure(volume.hu_array, volume.label_array, organ=organ, spacing_mm=volume.spacing_mm)
    sampler = TumorSampler(
        organ, settings.preset, contrast_hu=settings.contrast_hu, clear_of_vessels=settings.clear_of_vessels
    )
    rng = np.random.default_rng(settings.seed)
    placed, refused = sampler.sample_scene(volume, statistics, rng, size=settings.size, count=settings.count)
    if not placed:
        reasons = "; ".join(sorted({f"{miss.size_class}: {miss.reason}" for miss in refused}))
        raise InputError(
            f"{where}: no tumor fits into the organ of {statistics.volume_ml:.1f} ml ({reasons}); "
            "ask for a smaller `size`, or check the mask"
        )
    renderer = choice.open([choice.adapted(placement.spec) for placement in placed])
    scene = DrawnScene(statistics, [], [], refused, renderer)
    for number, placement in enumerate(placed):
        for _ in range(_DRAWS):
            tumor = rendered_in(volume, choice.adapted(placement.spec), organ, renderer=renderer)
            reason = too_faint(tumor, settings.minimum_contrast_to_noise)
            if reason is None:
                write_tumor(volume, tumor)
                scene.placed.append(placement)
                scene.rendered.append(tumor)
                break
            refused.append(NoRoom(organ.name, placement.spec.size_class, reason))
            occupied = [*scene.placed, *placed[number + 1 :]]
            found = sampler.sample(volume, statistics, rng, size=placement.spec.size_class, occupied=occupied)
            if isinstance(found, NoRoom):
                refused.append(found)
                break
            placement = found
    if not scene.placed:
        raise InputError(
            f"{where}: none of the tumors that were drawn has a contrast of "
            f"{settings.minimum_contrast_to_noise:g} times the noise; ask for less "
            "`minimum_contrast_to_noise`, or for more contrast with `contrast_hu`"
        )
    return scene


def with_room_for_label(volume: ArrayVolume, organ: Organ) -> ArrayVolume:
    """A volume whose label map can hold the tumors' label."""
    labels = volume.label_array
    if labels.dtype == bool or organ.tumor_label > np.iinfo(labels.dtype).max:
        labels = labels.astype(np.int16)
    return ArrayVolume(volume.hu_array, labels, volume.spacing_mm, volume.direction)
