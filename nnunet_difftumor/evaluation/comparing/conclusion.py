"""What may be concluded from a comparison, in a sentence, and what may not."""

from collections.abc import Mapping
from typing import Any

LEVEL = 0.05
# In the order in which they are told; tumors that are found come first, early ones before all.
_WORDS = {
    "detected_early": ("detects more early tumors", "detects fewer early tumors", 100),
    "detected": ("detects more tumors", "detects fewer tumors", 100),
    "dsc": ("has a higher DSC", "has a lower DSC", 100),
    "nsd": ("has a higher NSD", "has a lower NSD", 100),
    "false_positives_per_scan": ("makes more false positives", "makes fewer false positives", 1),
    "patient_sensitivity": ("recognizes more patients with tumors", "recognizes fewer patients with tumors", 100),
    "patient_specificity": ("leaves more healthy patients alone", "leaves fewer healthy patients alone", 100),
}
# Fewer cannot show anything: all signs alike have p = 2 / 2^5 = 0.06 with five pairs.
_FEWEST_PATIENTS = 6
_THESE_NETWORKS = (
    "these trained networks and patients like these {patients}; other seeds of the training and other hospitals may "
    "differ"
)


def conclusion(
    figures: Mapping[str, Mapping[str, Any]], first: str, second: str, *, holds_for: str = _THESE_NETWORKS
) -> str:
    """A sentence on the second method against the first, by tests at 5 % after Holm, and its bounds.

    A difference is only told if the interval of the difference agrees with the test.

    Args:
        figures: of `compare`, with `p_holm`.
        first, second: names of the methods.
        holds_for: what the sentence is about, with {patients} for their number.
    """
    patients = max((figure["patients"] for figure in figures.values()), default=0)
    if patients < _FEWEST_PATIENTS:
        return (
            f"Nothing may be concluded about {second} against {first}: with {patients} patient"
            f"{'s' * (patients != 1)} no test can be significant."
        )
    told = [_told(figures[name], *words) for name, words in _WORDS.items() if name in figures]
    differing = [words for words in told if words is not None]
    if not differing:
        text = (
            f"No difference between {second} and {first} was shown. This does not show that they are equal: the "
            "intervals say how large a difference may be."
        )
    else:
        text = f"{second} {'; '.join(differing)} than {first}."
    return f"{text} This holds for {holds_for.format(patients=patients)}."


def _told(figure: Mapping[str, Any], more: str, fewer: str, scale: float) -> str | None:
    difference, p = figure["difference"], figure.get("p_holm")
    if p is None or p >= LEVEL or difference["low"] is None or difference["low"] <= 0 <= difference["high"]:
        return None
    words = more if difference["value"] > 0 else fewer
    value, low, high = (abs(difference[key]) * scale for key in ("value", "low", "high"))
    unit = " points" if scale == 100 else ""
    return f"{words} (by {value:.2g}{unit}, 95 % {min(low, high):.2g} to {max(low, high):.2g}, p = {p:.2g} after Holm)"
