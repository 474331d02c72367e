"""What training changed: Dice by label and tumors found, before and after, on the same test cases."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

FOREGROUND = "foreground"
# A tumor counts as found if a predicted one overlaps with it by as much: a network that labels nearly everything, as an
# untrained one does, would touch every tumor.
MIN_IOU = 0.1
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


def not_raised(scores: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The Dice that training should have raised and did not: of the foreground, and of each tumor in the test cases.

    Args:
        scores: "dice" as `dice_by_label` gives it, and "tumors" of `difftumor evaluate`, each of the "untrained" and of
            the "trained" network.

    Returns:
        Dice before and after, by name.
    """
    before, after = (scores["dice"][network] for network in ("untrained", "trained"))
    names = [FOREGROUND, *(name for name in scores["tumors"]["untrained"] if name in before)]
    return {name: (before[name], after[name]) for name in names if after[name] <= before[name]}


def table(
    dice: Mapping[str, Mapping[str, float]],
    tumors: Mapping[str, Mapping[str, Any]],
    *,
    cases: Sequence[str],
    caution: Sequence[str] = (),
) -> str:
    """The figures of both networks side by side, the ones that look bad too.

    Args:
        dice: as `dice_by_label` gives it, of the "untrained" and of the "trained" network.
        tumors: the "tumors" of `difftumor evaluate`, of the same two networks.
        cases: names of the test cases.
        caution: lines that say why the figures are better than those of other patients would be.
    """
    held_out = "" if caution else " held-out"
    lines = [f"{len(cases)}{held_out} test case{'s' * (len(cases) != 1)}: {', '.join(cases)}", *caution]
    for what, *values in [("", *dice), *rows(dice, tumors)]:
        lines.append(f"{what:<{_WIDTH}}" + "".join(f"{value:>10}" for value in values))
    return "\n".join(lines)


def rows(dice: Mapping[str, Mapping[str, float]], tumors: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of the table: what is measured, and the figures of each network; arguments as those of `table`."""
    made = []
    for name in dice["untrained"]:
        what = "Dice, mean of the labels" if name == FOREGROUND else f"Dice, {name}"
        made.append((what, *(f"{of_network[name]:.3f}" for of_network in dice.values())))
    for name in tumors["untrained"]:
        summaries = [tumors[network][name]["summary"] for network in dice]
        found = [summary["tumor_sensitivity"]["all"] for summary in summaries]
        if not found[0]["count"]:
            continue
        of_all = (f"{round(one['value'] * one['count'])} of {one['count']}" for one in found)
        false_positives = (f"{summary['false_positives_per_scan']['all']['value']:.1f}" for summary in summaries)
        made += [
            (f"{name}, found (IoU >= {MIN_IOU:g})", *of_all),
            (f"{name}, false positives per scan", *false_positives),
        ]
    return made
