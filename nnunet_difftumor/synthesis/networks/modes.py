"""How diffusion tumors are drawn: with the same numbers wherever it is done, or as quickly as the device can."""

EXACT, FAST = "exact", "fast"
MODES = (EXACT, FAST)


def usual_mode(device: str) -> str:
    """Of live tumors and banks on a device, if nobody says otherwise."""
    return FAST if device == "cuda" else EXACT
