"""Pictures of a page of results: figures with their intervals, and FROC curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.evaluation.comparing.results_files import Method
from nnunet_difftumor.evaluation.figures.curves import Ranked
from nnunet_difftumor.evaluation.figures.summary import SIZES
from nnunet_difftumor.files import atomic_path

# Okabe and Ito's, which all kinds of colour vision tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DPI = 110
# Shares only: they have one axis.
_SHOWN: Mapping[str, tuple[str, ...]] = {
    "DSC": ("dsc",),
    "NSD": ("nsd",),
    "tumors detected": ("tumor_sensitivity", "all"),
    "early tumors detected": ("tumor_sensitivity", "early"),
    "lesion-wise F1": ("lesion_f1",),
    "patient-level sensitivity": ("patient_sensitivity",),
    "patient-level specificity": ("patient_specificity",),
}
_MOST_FALSE_POSITIVES = 8.0


def draw_intervals(path: Path, summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Points with 95 % intervals, a row per figure that any method has and a colour per method.

    Args:
        path: PNG file, written atomically.
        summaries: of `summarize`, by the method's name.
    """
    found = {title: [_estimate(summary, keys) for summary in summaries.values()] for title, keys in _SHOWN.items()}
    shown = {title: some for title, some in found.items() if any(one["value"] is not None for one in some)}
    figure, axes = _axes(height=1.2 + 0.22 * len(shown) * (1 + len(summaries)))
    for row, estimates in enumerate(shown.values()):
        for number, (name, estimate) in enumerate(zip(summaries, estimates, strict=True)):
            if estimate["value"] is None:
                continue
            y = row + (number - (len(summaries) - 1) / 2) * 0.7 / max(len(summaries), 1)
            colour = COLOURS[number % len(COLOURS)]
            if estimate["low"] is not None:
                axes.plot([estimate["low"], estimate["high"]], [y, y], color=colour, linewidth=2)
            axes.plot(estimate["value"], y, "o", color=colour, markersize=6, label=name if row == 0 else None)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="x", alpha=0.3)
    _finish(path, figure, axes, legend=len(summaries) > 1)


def draw_froc(path: Path, methods: Sequence[Method], tumor: str) -> None:
    """Sensitivity over false positives per scan: all tumors as lines, early ones dashed.

    Args:
        path: PNG file, written atomically.
        methods: with probabilities in every case.
        tumor: name of the label.
    """
    figure, axes = _axes(height=4.2)
    for number, method in enumerate(methods):
        cases = list(method.cases[tumor].values())
        for size, style in (("all", "-"), ("early", "--")):
            ranked = Ranked.of_cases(cases, SIZES[size])
            total = ranked.lesions.sum()
            if not total:
                continue
            found, false = ranked.counts(np.ones((1, len(cases))))
            x, y = np.append(0.0, false[0] / len(cases)), np.append(0.0, found[0] / total)
            label = method.name if size == "all" else f"{method.name}, early (< 20 mm)"
            axes.step(x, y, style, where="post", color=COLOURS[number % len(COLOURS)], label=label)
    axes.set_xlim(0, _MOST_FALSE_POSITIVES)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("false positives per scan")
    axes.set_ylabel("tumors detected")
    axes.grid(alpha=0.3)
    _finish(path, figure, axes, legend=True)


def _estimate(summary: Mapping[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        summary = summary[key]
    return summary


def _axes(*, height: float) -> tuple[Any, Any]:
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):
        figure = Figure(figsize=(7.6, height), dpi=_DPI, layout="constrained", facecolor="white")
        return figure, figure.add_subplot()


def _finish(path: Path, figure: Any, axes: Any, *, legend: bool) -> None:
    if legend:
        axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
