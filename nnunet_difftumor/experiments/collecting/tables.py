"""The result of an experiment for the terminal, and as a page in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_difftumor.evaluation.results.rows import counted
from nnunet_difftumor.experiments.figures import FIGURES
from nnunet_difftumor.experiments.masks import said

Rows = Sequence[Sequence[str]]

_ARMS = ("arm", "figure", "value", "95 % over patients", "seeds, least to greatest", "of")
_DIFFERENCES = ("arm", "figure", "against", "value", "difference", "95 % over seeds and patients", "p (Holm)")
_PUBLISHED = ("arm", "figure", "published", "ours", "difference", "source")
_SHORT = ("dsc", "nsd", "detected", "detected_early", "false_positives_per_scan", "patient_specificity")


def text(result: Mapping[str, Any]) -> str:
    """For the terminal: the main figures, and what may be concluded. result.md has the rest."""
    blocks = []
    for tumor, found in result["tumors"].items():
        blocks += [_head(tumor, found), _aligned(_ARMS, _arms(found, _SHORT))]
        blocks += [_aligned(_DIFFERENCES, _differences(found, _SHORT))]
        blocks += [_aligned(_PUBLISHED, _published(found))] if found["published"] else []
        blocks += ["\n".join(_sentences(found))]
    return "\n\n".join([*blocks, *_remarks(result)])


def markdown(result: Mapping[str, Any]) -> str:
    """The whole result."""
    plan = result["plan"]
    blocks = [f"# Experiment {plan['name']}", *([plan["about"]] if plan["about"] else [])]
    blocks.append(
        f"{len(plan['arms'])} arms, seeds {', '.join(map(str, plan['seeds']))}, {plan['epochs']} epochs of "
        f"{plan['iterations_per_epoch']} iterations each. nnunet-difftumor {result['version']}, plan "
        f"{result['plan_sha256'][:12]}."
    )
    for tumor, found in result["tumors"].items():
        blocks += [f"## {_head(tumor, found)}", "\n".join(f"- {line}" for line in _sentences(found))]
        blocks += ["### Arms", _table(_ARMS, _arms(found, tuple(FIGURES)))]
        blocks += ["### Differences", _table(_DIFFERENCES, _differences(found, tuple(FIGURES)))]
        if found["published"]:
            blocks += ["### Published", _table(_PUBLISHED, _published(found))]
    if remarks := _remarks(result):
        blocks += ["## Notes", "\n".join(f"- {line}" for line in remarks)]
    return "\n\n".join(blocks) + "\n"


def _head(tumor: str, found: Mapping[str, Any]) -> str:
    cases, patients = counted(found["cases"], "cases"), counted(found["patients"], "patients")
    return f"{tumor}: {cases} of {patients}, {counted(len(found['seeds']), 'seeds')}"


def _remarks(result: Mapping[str, Any]) -> list[str]:
    found = list(result["tumors"].values())
    remarks = [*said(result["placebo"]), *result["notes"]]
    if any(len(one["seeds"]) == 1 for one in found):
        remarks.append("One seed: there is no interval of the differences, for nothing says how much trainings differ.")
    if any(one["patients"] == 1 for one in found):
        remarks.append("One patient: there is no interval, for there is nothing to resample.")
    return remarks


def _sentences(found: Mapping[str, Any]) -> list[str]:
    return [of_arm["conclusion"] for of_arm in found["differences"].values()]


def _arms(found: Mapping[str, Any], names: Sequence[str]) -> Rows:
    return [
        (
            arm,
            FIGURES[name].title,
            _number(figure["value"]),
            _interval(figure),
            f"{figure['least']:.3f} to {figure['greatest']:.3f}" if len(figure["seeds"]) > 1 else "-",
            counted(figure["count"], figure["unit"]),
        )
        for name in names
        for arm, figures in found["arms"].items()
        if (figure := figures.get(name)) is not None
    ]


def _differences(found: Mapping[str, Any], names: Sequence[str]) -> Rows:
    return [
        (
            arm,
            FIGURES[name].title,
            f"{of_arm['against']} {_number(figure['first'])}",
            _number(figure["second"]),
            _number(figure["difference"]["value"], "+"),
            _interval(figure["difference"], "+"),
            _p(figure.get("p_holm")),
        )
        for name in names
        for arm, of_arm in found["differences"].items()
        if (figure := of_arm["figures"].get(name)) is not None
    ]


def _published(found: Mapping[str, Any]) -> Rows:
    return [
        (
            row["arm"],
            FIGURES[row["figure"]].title,
            _number(row["published"]),
            _number(row["ours"]),
            _number(row["difference"], "+"),
            row["source"],
        )
        for row in found["published"]
    ]


def _aligned(head: Sequence[str], rows: Rows) -> str:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def _table(head: Sequence[str], rows: Rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _interval(estimate: Mapping[str, Any], sign: str = "") -> str:
    return "-" if estimate["low"] is None else f"{estimate['low']:{sign}.3f} to {estimate['high']:{sign}.3f}"


def _p(value: float | None) -> str:
    return "-" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"
