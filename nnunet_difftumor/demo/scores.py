"""What training changed: Dice by label before and after, on the same test cases; and the tumors found after it."""

from collections.abc import Mapping, Sequence
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


def table(
    dice: Mapping[str, Mapping[str, float]], tumors: Mapping[str, Any], *, cases: Sequence[str], seen: bool
) -> str:
    """The figures for the terminal.

    Args:
        dice: as `dice_by_label` gives it, of the "untrained" and of the "trained" network.
        tumors: the "tumors" of `difftumor evaluate`, of the trained network. (The untrained one labels everywhere, and
            so "finds" every tumor.)
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
    for name in dice["untrained"]:
        what = "Dice, mean of the labels" if name == FOREGROUND else f"Dice, {name}"
        lines.append(f"{what:<{_WIDTH}}" + "".join(f"{dice[network][name]:>10.3f}" for network in dice))
    for name, found in tumors.items():
        sensitivity = found["summary"]["tumor_sensitivity"]["all"]
        false_positives = found["summary"]["false_positives_per_scan"]["all"]
        if sensitivity["count"]:
            count = sensitivity["count"]
            lines.append(
                f"{name}, trained: {round(sensitivity['value'] * count)} of {count} found, "
                f"{false_positives['value']:.1f} false positives per scan"
            )
    return "\n".join(lines)
