"""Files of an evaluation, by suffix: JSON, a CSV row per case, tables in Markdown and LaTeX."""

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.measures.case import BANDS_MM
from nnunet_difftumor.evaluation.results.rows import Row, rows
from nnunet_difftumor.files import atomic_path, json_text

_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"} | {"<": "$<$", ">": "$>$"})


def check_outputs(paths: Sequence[str | os.PathLike]) -> list[Path]:
    """Refuses files whose suffix says nothing, before any work is done.

    Raises:
        InputError: names the file and the suffixes.
    """
    found = [Path(path) for path in paths]
    for path in found:
        if path.suffix not in _WRITERS:
            raise InputError(f"{path}: expected a name that ends in {', '.join(_WRITERS)}")
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected the name of a file")
    return found


def write_results(result: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Writes a result of `evaluate`, atomically.

    Args:
        result: as returned.
        paths: that `check_outputs` has checked.
    """
    for path in paths:
        with atomic_path(path) as temporary:
            temporary.write_text(_WRITERS[path.suffix](result), encoding="utf-8")


def csv_of_cases(result: Mapping[str, Any]) -> str:
    """A row for each case and tumor label."""
    columns = ["tumor", "case", "patient", "dsc", "nsd", "hd95_mm", "truth_ml", "predicted_ml", "tumors", "detected"]
    columns += ["early", "early_detected", "findings", "false_positives"]
    columns += [f"{what}_{band}" for band in BANDS_MM for what in ("tumors", "detected")]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    early = ("under_5mm", "tiny", "small")
    for tumor, found in result["tumors"].items():
        for name, case in found["cases"].items():
            tumors = case["tumors"]
            row = {"tumor": tumor, "case": name, "patient": case.get("patient", "")}
            row |= {key: case[key] for key in ("dsc", "nsd", "hd95_mm", "truth_ml", "predicted_ml", "findings")}
            row |= {"tumors": len(tumors), "detected": sum(one["detected"] for one in tumors)}
            row |= {"early": sum(one["band"] in early for one in tumors)}
            row |= {"early_detected": sum(one["detected"] for one in tumors if one["band"] in early)}
            row |= {"false_positives": len(case["false_positives"])}
            for band in BANDS_MM:
                of_band = [one["detected"] for one in tumors if one["band"] == band]
                row |= {f"tumors_{band}": len(of_band), f"detected_{band}": sum(of_band)}
            writer.writerow(row)
    return text.getvalue()


def markdown(result: Mapping[str, Any]) -> str:
    """A table for each tumor label."""
    blocks = []
    for tumor, of_tumor in _rows(result):
        lines = [f"**{tumor}**", "", "| | value | 95 % interval | of |", "|---|---|---|---|"]
        for row in of_tumor:
            value, interval = cells(row)
            lines.append(f"| {row.name} | {value} | {interval} | {row.counted} |")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def latex(result: Mapping[str, Any]) -> str:
    """A `tabular` for each tumor label, with booktabs' rules, shares in percent as the papers print them."""
    blocks = []
    for tumor, of_tumor in _rows(result):
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{tabular}{lrrl}",
            "\\toprule",
            f"{_escaped(tumor)} & value & 95\\,\\% interval & of \\\\",
            "\\midrule",
        ]
        for row in of_tumor:
            words = (row.name, *cells(row), row.counted)
            lines.append(" & ".join(map(_escaped, words)) + " \\\\")
        blocks.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n")
    return "\n".join(blocks)


def cells(row: Row) -> tuple[str, str]:
    """Value and interval for a printed table; shares in percent with one digit."""
    value, low, high = (row.estimate[key] for key in ("value", "low", "high"))
    scale, unit = (100, " %") if row.percent else (1, "")
    if value is None:
        return "-", "-"
    return f"{value * scale:.1f}{unit}", "-" if low is None else f"{low * scale:.1f} to {high * scale:.1f}"


def _rows(result: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    tolerance_mm = result["settings"]["nsd_tolerance_mm"]
    return [
        (tumor, list(rows(found["summary"], nsd_tolerance_mm=tolerance_mm)))
        for tumor, found in result["tumors"].items()
    ]


def _escaped(text: str) -> str:
    return text.translate(_LATEX)


_WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    ".json": json_text,
    ".csv": csv_of_cases,
    ".md": markdown,
    ".tex": latex,
}
