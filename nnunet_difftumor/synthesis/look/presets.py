"""The presets by name."""

from collections.abc import Mapping

from nnunet_difftumor.synthesis.look.hu2023 import (
    DIFFTUMOR,
    HU2023,
    HU2023_ELLIPSOID,
    HU2023_SHARP,
    HU2023_SPLINE,
    HU2023_UNDEFORMED,
    HU2023_VISUAL,
)
from nnunet_difftumor.synthesis.look.placebo import PLACEBO
from nnunet_difftumor.synthesis.look.preset import Preset
from nnunet_difftumor.synthesis.look.realistic import REALISTIC

PRESETS: Mapping[str, Preset] = {
    "realistic": REALISTIC,
    "hu2023": HU2023,
    "hu2023_spline": HU2023_SPLINE,
    "hu2023_visual": HU2023_VISUAL,
    "hu2023_undeformed": HU2023_UNDEFORMED,
    "hu2023_sharp": HU2023_SHARP,
    "hu2023_ellipsoid": HU2023_ELLIPSOID,
    "difftumor": DIFFTUMOR,
    "placebo": PLACEBO,
}
