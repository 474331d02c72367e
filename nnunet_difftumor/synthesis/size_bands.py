"""The sizes of tumors by name. Apart from the presets, for commands that must start quickly."""

from collections.abc import Mapping

# Bands of equivalent diameter (of the ball with the tumor's volume), in mm; "early" is tiny and small (< 20 mm).
SIZE_BANDS_MM: Mapping[str, tuple[float, float]] = {
    "tiny": (5.0, 10.0),
    "small": (10.0, 20.0),
    "medium": (20.0, 40.0),
    "large": (40.0, 80.0),
}
