"""What is asked of every rendered tumor: whether anybody could see it, and whether it changes only what it may."""

from collections.abc import Iterable

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.shape.survey import region_of, survey
from nnunet_difftumor.synthesis.volume import Volume, along, axes_mm, clipped_box

# Below this contrast-to-noise ratio of single voxels a tumor counts as one that nobody could see.
LEAST_CONTRAST_TO_NOISE = 0.5
# Nobody can ask for more: hardly any real tumor has it.
MOST_CONTRAST_TO_NOISE = 10.0
# Of positions, in mm, so that rounding does not decide.
_TIE_MM = 1e-3


def is_faint(tumor: RenderedTumor, least: float = LEAST_CONTRAST_TO_NOISE) -> bool:
    """Whether a tumor's contrast is less than so many times the noise around it.

    Contrast to noise is |mean(tumor) - median(organ around)| / sd(organ around), see `RenderedTumor`. Without tissue
    around it is not known, and the tumor not called faint.
    """
    ratio = tumor.contrast_to_noise()
    return ratio is not None and ratio < least


def count_faint(tumors: Iterable[RenderedTumor]) -> int:
    """How many of them nobody could see."""
    return sum(is_faint(tumor) for tumor in tumors)


def check_minimum(minimum_contrast_to_noise: float | None) -> None:
    """Refuses a limit that cannot be.

    Raises:
        InputError: naming the argument.
    """
    if minimum_contrast_to_noise is not None and not 0 <= minimum_contrast_to_noise <= MOST_CONTRAST_TO_NOISE:
        raise InputError(
            f"`minimum_contrast_to_noise` is {minimum_contrast_to_noise:g}, expected a number from 0 to "
            f"{MOST_CONTRAST_TO_NOISE:g}"
        )


def too_faint(tumor: RenderedTumor, least: float | None) -> str | None:
    """Why a tumor is not wanted; None if it is.

    Args:
        tumor: rendered.
        least: contrast to noise that is asked for, `minimum_contrast_to_noise`; None: none is.
    """
    if least is None or not is_faint(tumor, least):
        return None
    return f"contrast is less than {least:g} times the noise"


def check_reach(tumor: RenderedTumor, volume: Volume) -> None:
    """Refuses a tumor that changes voxels out of its reach.

    The reach is the box of the blurred shape (`region_of`), and the ball of the mass effect around the centre.

    Args:
        tumor: rendered into `volume`.
        volume: the scan before the tumor was written into it.

    Raises:
        InputError: with the number of voxels.
    """
    spec, spacing_mm = tumor.spec, volume.spacing_mm
    near = region_of(spec, volume.shape, spacing_mm, with_mass_effect=False)
    if all(a.start <= b.start and b.stop <= a.stop for a, b in zip(near, tumor.box, strict=True)):
        return
    beyond = (tumor.hu != volume.hu(tumor.box)) | (tumor.labels != volume.labels(tumor.box))
    starts = [part.start for part in tumor.box]
    lower, upper = ([getattr(a, end) - b for a, b in zip(near, starts, strict=True)] for end in ("start", "stop"))
    beyond[clipped_box(lower, upper, beyond.shape)] = False
    if spec.mass_effect > 0 and beyond.any():
        square = sum(
            along(axis, (places - centre) ** 2)
            for axis, (places, centre) in enumerate(zip(axes_mm(tumor.box, spacing_mm), spec.centre_mm, strict=True))
        )
        beyond &= square > (spec.mass_effect_radius_mm + _TIE_MM) ** 2
    if count := int(np.count_nonzero(beyond)):
        centre = ", ".join(f"{value:.0f}" for value in spec.centre_mm)
        raise InputError(
            f"{spec.size_class} tumor of {spec.organ} at {centre} mm: {count} voxels are changed beyond its reach, "
            f"{survey(spec).reach_mm:.1f} mm around its centre; that is a fault of its renderer or of its file, not of "
            "the scan: make it again"
        )
