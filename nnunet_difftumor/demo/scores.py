"""What training changed: Dice by label before and after, and tumors found, on the same test cases."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

FOREGROUND = "foreground"
_WIDTH = 36


def dice_by_label(summary: Mapping[str, Any], labels: Mapping[str, int]) -> dict[str, float]:
    """Mean Dice over the cases, by label, and "foreground", the mean of these.

    Counted are the cases, and the labels, that are in the truth: where there is none, Dice would be 0 or undefined by
    a single voxel.

    Args:
        summary: content of a summary.json of nnU-Net's evaluation.
        labels: label values by name.

    Returns:
        Dice, 0 to 1, by name.
    """
    dice = {}
    for name, value in labels.items():
        metrics = [case["metrics"][str(value)] for case in summary["metric_per_case"]]
        measured = [case["Dice"] for case in metrics if case["n_ref"]]
        if measured:
            dice[name] = mean(measured)
    return dice | {FOREGROUND: mean(dice.values())}


def scores_of(predictions: Path, tumors_json: Path, labels: Mapping[str, int]) -> dict[str, Any]:
    """Scores of one network: Dice by label from nnU-Net's summary.json, tumor figures from `difftumor evaluate`."""
    summary = json.loads((predictions / "summary.json").read_text())
    tumors = json.loads(tumors_json.read_text())["tumors"]
    return {
        "dice": dice_by_label(summary, labels),
        "tumors": {name: found["summary"] for name, found in tumors.items()},
    }


def table(untrained: Mapping[str, Any], trained: Mapping[str, Any], *, cases: Sequence[str], seen: bool) -> str:
    """The scores side by side.

    Args:
        untrained, trained: as `scores_of` gives them.
        cases: names of the test cases.
        seen: whether the test cases were trained on.
    """
    held_out = "" if seen else " held-out"
    lines = [f"{len(cases)}{held_out} test case{'s' * (len(cases) != 1)}: {', '.join(cases)}"]
    if seen:
        lines += [
            "TRAINED ON THE CASES THAT IT IS TESTED ON, for there is only one with tumors:",
            "this shows that the software works, and says nothing about other patients.",
        ]
    lines.append(f"{'':<{_WIDTH}}{'untrained':>10}{'trained':>10}")
    for name, value in untrained["dice"].items():
        what = "Dice, mean of the labels" if name == FOREGROUND else f"Dice, {name}"
        lines.append(f"{what:<{_WIDTH}}{value:>10.3f}{trained['dice'][name]:>10.3f}")
    for name, before in untrained["tumors"].items():
        after = trained["tumors"][name]
        if not before["tumor_sensitivity"]["all"]["count"]:
            continue
        for what, key in (("found, of", "tumor_sensitivity"), ("false positives per scan", "false_positives_per_scan")):
            of = f" {before[key]['all']['count']}" if key == "tumor_sensitivity" else ""
            values = [estimates[key]["all"]["value"] for estimates in (before, after)]
            lines.append(f"{f'{name} {what}{of}':<{_WIDTH}}" + "".join(f"{value:>10.2f}" for value in values))
    return "\n".join(lines)
