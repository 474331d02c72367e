"""The sizes of tumors by name, and which of them are early. Apart from the presets, for commands that start quickly."""

from collections.abc import Mapping

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stages import EARLY_BELOW_MM

# Bands of equivalent diameter (of the ball with the tumor's volume), in mm.
SIZE_BANDS_MM: Mapping[str, tuple[float, float]] = {
    "tiny": (5.0, 10.0),
    "small": (10.0, 20.0),
    "medium": (20.0, 40.0),
    "large": (40.0, 80.0),
}
# Size classes by the diffusion model that draws them; early tumors are those below 20 mm (Chen et al., CVPR 2024).
SIZES_OF_STAGE: Mapping[str, tuple[str, ...]] = {
    "early": tuple(size for size, (_, high) in SIZE_BANDS_MM.items() if high <= EARLY_BELOW_MM),
    "late": tuple(size for size, (_, high) in SIZE_BANDS_MM.items() if high > EARLY_BELOW_MM),
}
EARLY_SIZES = SIZES_OF_STAGE["early"]


def stage_of(size_class: str) -> str:
    """The stage of a size class, early or late.

    Raises:
        InputError: for an unknown size.
    """
    for stage, sizes in SIZES_OF_STAGE.items():
        if size_class in sizes:
            return stage
    raise InputError(f"tumor spec: size_class is {size_class!r}, expected one of {', '.join(SIZE_BANDS_MM)}")
