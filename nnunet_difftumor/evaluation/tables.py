"""The result of `evaluate` as a table for the terminal."""

from nnunet_difftumor.evaluation.comparison import BANDS_MM

_WIDTH = 48


def table(result: dict) -> str:
    """All figures over cases; what one of them counts is the last column. `-` stands for nothing to measure."""
    tolerance_mm = result["settings"]["nsd_tolerance_mm"]
    sizes = {"all": "all", "early": "early (< 20 mm)"} | {
        band: f"under {high:g} mm"
        if low == 0
        else f"{band} (>= {low:g} mm)"
        if high == float("inf")
        else f"{band} ({low:g} to {high:g} mm)"
        for band, (low, high) in BANDS_MM.items()
    }
    blocks = []
    for tumor, found in result["tumors"].items():
        summary = found["summary"]
        cases = found["cases"].values()
        ill = sum(bool(case["tumors"]) for case in cases)
        values = ", ".join(map(str, found["label_values"]))
        lines = [
            f"{tumor} (values {values}): {len(cases)} cases, {ill} with tumors, {len(cases) - ill} without",
            f"{'':<{_WIDTH}}{'value':>7}  {'95 % interval':<16}of",
            _line("DSC", summary["dsc"], "cases with tumors"),
            _line(f"NSD at {tolerance_mm:g} mm", summary["nsd"], "cases with tumors"),
            *(
                _line(f"tumors detected, {text}", summary["tumor_sensitivity"][size], "tumors")
                for size, text in sizes.items()
            ),
            *(
                _line(f"false positives per scan, {text}", summary["false_positives_per_scan"][size], "cases")
                for size, text in sizes.items()
            ),
            _line("patient-level sensitivity", summary["patient_sensitivity"], "cases with tumors"),
            _line("patient-level specificity", summary["patient_specificity"], "cases without tumors"),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _line(name: str, estimate: dict, unit: str) -> str:
    value = "-" if estimate["value"] is None else f"{estimate['value']:.3f}"
    interval = "-" if estimate["low"] is None else f"{estimate['low']:.3f} to {estimate['high']:.3f}"
    return f"{name:<{_WIDTH}}{value:>7}  {interval:<16}{estimate['count']} {unit}"
