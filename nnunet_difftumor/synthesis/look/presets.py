"""The presets by name."""

from collections.abc import Mapping

from nnunet_difftumor.synthesis.look.hu2023 import DIFFTUMOR, HU2023, HU2023_SPLINE, HU2023_VISUAL
from nnunet_difftumor.synthesis.look.placebo import PLACEBO
from nnunet_difftumor.synthesis.look.preset import Preset
from nnunet_difftumor.synthesis.look.realistic import REALISTIC

PRESETS: Mapping[str, Preset] = {
    "realistic": REALISTIC,
    "hu2023": HU2023,
    "hu2023_spline": HU2023_SPLINE,
    "hu2023_visual": HU2023_VISUAL,
    "difftumor": DIFFTUMOR,
    "placebo": PLACEBO,
}
