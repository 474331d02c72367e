"""A comparison as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "dsc": "DSC",
    "nsd": "NSD",
    "detected": "tumors detected",
    "detected_early": "early tumors detected (< 20 mm)",
    "false_positives_per_scan": "false positives per scan",
    "patient_sensitivity": "patient-level sensitivity",
    "patient_specificity": "patient-level specificity",
    "detected_at_equal_false_positives": "detected at {rate:g} false positive per scan",
    "detected_early_at_equal_false_positives": "early ones detected at {rate:g} false positive per scan",
    "average_precision": "average precision",
}
_WIDTH = 50
_HEAD = f"{'':<{_WIDTH}}{'first':>8}{'second':>8}{'differ':>8}  {'95 % interval':<18}{'p (Holm)':>9}{'check':>8}  of"


def table(compared: Mapping[str, Any]) -> str:
    """Every method against the reference: both values, the difference with its interval, p after Holm, the check, and
    what is counted; then the sentence that says what may be concluded.
    """
    rate = compared["settings"]["equal_false_positives_per_scan"]
    blocks = []
    for tumor, methods in compared["tumors"].items():
        for name, found in methods.items():
            lines = [
                f"{tumor}: {name} against {compared['reference']}",
                _HEAD,
                *(_line(_NAMES[key].format(rate=rate), figure) for key, figure in found["figures"].items()),
                found["conclusion"],
            ]
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _line(name: str, figure: Mapping[str, Any]) -> str:
    difference = figure["difference"]
    interval = "-" if difference["low"] is None else f"{difference['low']:+.3f} to {difference['high']:+.3f}"
    change = "-" if difference["value"] is None else f"{difference['value']:+.3f}"
    return (
        f"{name:<{_WIDTH}}{figure['first']:>8.3f}{figure['second']:>8.3f}{change:>8}  {interval:<18}"
        f"{_p(figure.get('p_holm')):>9}{_p(figure['p_permutation']):>8}  {figure['count']} {figure['unit']}"
    )


def _p(value: float | None) -> str:
    return "-" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"
