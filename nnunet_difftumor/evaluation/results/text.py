"""The result of `evaluate` as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from nnunet_difftumor.evaluation.results.rows import Row, counted, counts, rows

_WIDTH = 60
# Of groups, the figures of DiffTumor's Table 5 (Chen et al., CVPR 2024, section 4.3) and what they are of.
_OF_GROUPS = ("cases", "DSC", "NSD", "detected", "early", "FP/scan")


def table(result: Mapping[str, Any]) -> str:
    """All figures over cases; what one of them counts is the last column. `-` stands for nothing to measure."""
    tolerance_mm = result["settings"]["nsd_tolerance_mm"]
    blocks = []
    for tumor, found in result["tumors"].items():
        ill, healthy = counts(found)
        values = ", ".join(map(str, found["label_values"]))
        lines = [
            f"{tumor} (values {values}): {counted(ill + healthy, 'cases')}, {ill} with tumors, {healthy} without",
            f"{'':<{_WIDTH}}{'value':>8}  {'95 % interval':<18}of",
            *(_line(row) for row in rows(found["summary"], nsd_tolerance_mm=tolerance_mm)),
        ]
        if ill + healthy == 1:
            lines.append("One case has no interval: there is nothing to resample.")
        blocks += ["\n".join(lines), *(_groups(name, of_value) for name, of_value in found["groups"].items())]
    if empty := result["settings"]["counted_as_empty"]:
        blocks.append(f"Without a prediction, counted as predictions without tumors: {', '.join(empty)}")
    return "\n\n".join(blocks)


def _groups(name: str, of_value: Mapping[str, Any]) -> str:
    width = max(len(name), *map(len, of_value)) + 2
    lines = [f"{name:<{width}}" + "".join(f"{head:>10}" for head in _OF_GROUPS)]
    for value, summary in of_value.items():
        cells = [str(summary["false_positives_per_scan"]["all"]["count"])]
        cells += [_value(summary[key]["value"]) for key in ("dsc", "nsd")]
        cells += [_value(summary["tumor_sensitivity"][size]["value"]) for size in ("all", "early")]
        cells.append(_value(summary["false_positives_per_scan"]["all"]["value"]))
        lines.append(f"{value:<{width}}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def _line(row: Row) -> str:
    low, high = row.estimate["low"], row.estimate["high"]
    interval = "-" if low is None else f"{low:.3f} to {high:.3f}"
    return f"{row.name:<{_WIDTH}}{_value(row.estimate['value']):>8}  {interval:<18}{row.counted}"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
