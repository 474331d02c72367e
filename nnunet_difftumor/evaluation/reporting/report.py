"""One page of the results of evaluations: figures, plots, what may be concluded, pictures, settings and hashes."""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.comparing.compare import compare
from nnunet_difftumor.evaluation.comparing.results_files import Method, load_methods, load_results
from nnunet_difftumor.evaluation.reporting.gallery import KINDS, gallery
from nnunet_difftumor.evaluation.reporting.plots import draw_froc, draw_intervals
from nnunet_difftumor.evaluation.results.rows import counted, counts, rows
from nnunet_difftumor.evaluation.results.writing import cells
from nnunet_difftumor.pages import Page

EACH = 4


def report(
    results: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    names: Sequence[str] = (),
    images: str | os.PathLike | None = None,
    each: int = EACH,
    seed: int = 0,
) -> Path:
    """Writes a page of one or more results of `evaluate`, atomically; it needs no other file and no network.

    Args:
        results: JSON files of `evaluate`; several must be of the same cases, truth and settings.
        output: HTML file.
        names: of the methods; none: the names of the files.
        images: folder of the CTs, CASE_0000.nii.gz, for slices of tumors that were found and missed, and of false
            positives; None: none are shown.
        each: lesions of each kind and method that are shown.
        seed: of the intervals of differences.

    Returns:
        The page.

    Raises:
        InputError: a file is no result, results do not belong together, or a scan is missing.
    """
    if not 1 <= each <= 20:
        raise InputError(f"`each` is {each}, expected 1 to 20: more makes a page that opens slowly")
    output = Path(output)
    if output.suffix != ".html":
        raise InputError(f"{output}: expected a name that ends in .html")
    methods = load_methods(results, names) if len(results) > 1 else [load_results(Path(results[0]), names)]
    page = Page("Evaluation" if len(methods) == 1 else "Comparison", ", ".join(method.name for method in methods))
    compared = compare(results, names=[method.name for method in methods], seed=seed) if len(methods) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        for tumor in methods[0].cases:
            _add_tumor(page, tumor, methods, compared, Path(folder))
            if images is not None:
                for method in methods:
                    _add_gallery(page, tumor, method, Path(images), each)
    _add_sources(page, methods)
    page.write(output)
    return output


def _add_tumor(
    page: Page, tumor: str, methods: Sequence[Method], compared: Mapping[str, Any] | None, folder: Path
) -> None:
    found = [method.content["tumors"][tumor] for method in methods]
    ill, healthy = counts(found[0])
    page.heading(tumor)
    page.text(
        f"{counted(ill + healthy, 'cases')}, {ill} with tumors. Intervals are 95 %, over patients; every figure is "
        "defined in docs/statistics.md."
    )
    if compared is not None:
        for name, pair in compared["tumors"][tumor].items():
            page.warning(f"{name} against {compared['reference']}: {pair['conclusion']}")
    tolerance_mm = methods[0].settings["nsd_tolerance_mm"]
    of_methods = [list(rows(one["summary"], nsd_tolerance_mm=tolerance_mm)) for one in found]
    page.table(
        ("", *(method.name for method in methods), "of"),
        [
            (row.name, *(_with_interval(columns[i]) for columns in of_methods), row.counted)
            for i, row in enumerate(of_methods[0])
            if any(columns[i].estimate["value"] is not None for columns in of_methods)
        ],
    )
    draw_intervals(folder / "intervals.png", {m.name: one["summary"] for m, one in zip(methods, found, strict=True)})
    page.picture(folder / "intervals.png", f"{tumor}: figures with 95 % intervals over patients")
    if all("patient_auc" in one["summary"] for one in found):
        draw_froc(folder / "froc.png", methods, tumor)
        page.picture(folder / "froc.png", f"{tumor}: sensitivity over false positives per scan")
    for column in found[0]["groups"]:
        _add_groups(page, column, methods, found)


def _add_groups(page: Page, column: str, methods: Sequence[Method], found: Sequence[Mapping[str, Any]]) -> None:
    lines = []
    for method, one in zip(methods, found, strict=True):
        for value, summary in one["groups"].get(column, {}).items():
            cases = summary["false_positives_per_scan"]["all"]["count"]
            shown = [
                row for row in rows(summary, nsd_tolerance_mm=2.0) if row.name in ("DSC", "patient-level specificity")
            ]
            early = summary["tumor_sensitivity"]["early"]
            lines.append((method.name, value, cases, *map(_with_interval, shown), _share(early)))
    page.text(f"By {column}:")
    page.table(("method", column, "cases", "DSC", "patient-level specificity", "early tumors detected"), lines)


def _add_gallery(page: Page, tumor: str, method: Method, images: Path, each: int) -> None:
    for kind, stacks in gallery(method.content, tumor, images, each=each).items():
        if stacks:
            page.heading(f"{KINDS[kind]}: {tumor}, {method.name}")
            for stack in stacks:
                page.slices(stack)


def _add_sources(page: Page, methods: Sequence[Method]) -> None:
    page.heading("Settings and files")
    page.facts(methods[0].settings)
    for method in methods:
        page.folded(
            method.name,
            {
                "result": str(method.path.resolve()),
                "SHA-256": hashlib.sha256(method.path.read_bytes()).hexdigest(),
                "ground truth": method.content["ground_truth"],
                "prediction": method.content["prediction"],
                "made by": f"nnunet-difftumor {method.content['version']}",
            },
        )


def _with_interval(row: Any) -> str:
    value, interval = cells(row)
    return value if interval == "-" else f"{value} ({interval})"


def _share(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    return f"{round(estimate['value'] * estimate['count'])} of {estimate['count']}"
