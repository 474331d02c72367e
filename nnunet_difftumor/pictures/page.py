"""The page of a preview: its pictures, and every sample in a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.pages import Page

REPORT = "report.html"


def write_page(output: Path, record: Mapping[str, Any], *, files: Sequence[str]) -> None:
    """Writes `report.html`.

    Args:
        output: folder with the pictures.
        record: content of preview.json.
        files: names of the pictures that were drawn.
    """
    page = Page(
        f"What a training would see of {record['dataset']}",
        f"{record['samples']} samples of configuration {record['configuration']}, "
        f"{record['samples_without_tumor']} of them without a tumor.",
    )
    for name, rows in record["pictures"].items():
        page.heading(name)
        if f"{name}.png" in files:
            page.picture(output / f"{name}.png", f"{name}: the slice with most of each sample's largest tumor")
        page.table(
            ("row", "case", "size", "diameter, mm", "contrast, HU", "refused"),
            [line for label, samples in rows.items() for sample in samples for line in _lines(label, sample)],
        )
    for name in files:
        if name.endswith(".gif"):
            page.heading("Through a case")
            page.picture(output / name, "One case with tumors of every size in every organ, before and after")
    page.heading("Settings")
    page.facts(record["settings"])
    page.write(output / REPORT)


def _lines(label: str, sample: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """A line for each tumor of a sample, or one that says why there is none."""
    refused = "; ".join(sorted(set(sample["refused"])))
    if not sample["tumors"]:
        return [(label, sample["case"], None, None, None, refused)]
    return [
        (
            label,
            sample["case"],
            tumor["spec"]["size_class"],
            round(tumor["equivalent_diameter_mm"], 1),
            None if tumor["measured_contrast_hu"] is None else round(tumor["measured_contrast_hu"]),
            refused,
        )
        for tumor in sample["tumors"]
    ]
