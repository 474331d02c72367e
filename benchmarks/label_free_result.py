"""What `label_free.py` has measured: result.json, a table by arm and seed, and a picture.

Figures of arms are the experiment's. There is one scan: intervals over patients do not exist. Those over tumors are
exact (Clopper and Pearson) and take the tumors of the scan as independent, which those of one patient are not: the
truth is wider.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from nnunet_difftumor.demonstration.pictures import draw_predictions
from nnunet_difftumor.files import write_json

_RUN = re.compile(r"(?P<arm>\w+)_seed_(?P<seed>\d+)_fold_all")
_FIGURES = ("dsc", "nsd", "detected", "detected_early", "false_positives_per_scan")


def report(
    experiment: Path,
    out: Path,
    *,
    made: Mapping[str, Any],
    settings: Mapping[str, Any],
    labels: Mapping[str, int],
    tumor: str,
    case: tuple[str, Path, Path],
) -> None:
    """Writes result.json and picture.png, and prints the table.

    Args:
        experiment: folder of the finished experiment.
        out: gets the files.
        made: where and with what.
        settings: beside those of the plan.
        labels: label values by name.
        tumor: name of the tumor label.
        case: name, CT and truth of the scan that was predicted.
    """
    found = json.loads((experiment / "result.json").read_text())
    runs = {name: figures(experiment / "runs" / name, tumor) for name in found["runs"]}
    for name, facts in found["runs"].items():
        runs[name] |= {"seconds_of_training": facts["trained"]["seconds"]}
    of_tumor = found["tumors"][tumor]
    write_json(
        out / "result.json",
        {
            **made,
            "settings": {
                **settings,
                **{key: found["plan"][key] for key in ("seeds", "epochs", "iterations_per_epoch")},
            },
            "plan": found["plan"]["arms"],
            "runs": runs,
            "arms": {
                arm: {name: of_arm[name] for name in _FIGURES} | {"share_of_tumors_95": shares(runs, arm)}
                for arm, of_arm in of_tumor["arms"].items()
            },
            "differences": of_tumor["differences"],
            "placebo": found["placebo"],
        },
    )
    maps = {
        arm: experiment / "runs" / f"{arm}_seed_{found['plan']['seeds'][0]}_fold_all" / "predictions" / case[2].name
        for arm in of_tumor["arms"]
    }
    draw_predictions(
        out / "picture.png",
        [(case[0], case[1], {"truth": case[2], **maps})],
        labels=labels,
        tumor_labels=[labels[tumor]],
    )
    print(f"\n{table(runs)}\n\n{out / 'result.json'}\n{out / 'picture.png'}")


def figures(run: Path, tumor: str) -> dict[str, Any]:
    """Of one training."""
    summary = json.loads((run / "evaluation.json").read_text())["tumors"][tumor]["summary"]
    sensitivity = summary["tumor_sensitivity"]
    return {
        "dsc": summary["dsc"]["value"],
        "nsd": summary["nsd"]["value"],
        "detected": {
            band: [tumors_found(entry), entry["count"]] for band, entry in sensitivity.items() if entry["count"]
        },
        "false_positives": {band: entry["value"] for band, entry in summary["false_positives_per_scan"].items()},
    }


def tumors_found(entry: Mapping[str, Any]) -> int:
    return round(entry["value"] * entry["count"])


def shares(runs: Mapping[str, Mapping[str, Any]], arm: str) -> dict[str, list[float]]:
    """Interval of the share of tumors found, by size: of the number that is found on average over seeds, rounded, of
    as many tumors as the scan has, which other trainings do not make more.
    """
    of_arm = [run["detected"] for name, run in runs.items() if _RUN.fullmatch(name)["arm"] == arm]
    intervals = {}
    for band in ("all", "early"):
        count = of_arm[0][band][1]
        mean = round(sum(run[band][0] for run in of_arm) / len(of_arm))
        bounds = binomtest(mean, count).proportion_ci(0.95, method="exact")
        intervals[band] = [round(float(bounds.low), 3), round(float(bounds.high), 3)]
    return intervals


def table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """By arm and seed."""
    rows: list[Sequence[str]] = [("arm", "seed", "DSC", "NSD", "found", "early", "false positives", "minutes")]
    for name, run in sorted(runs.items()):
        of_run, seconds = _RUN.fullmatch(name), run["seconds_of_training"]
        rows.append(
            (
                of_run["arm"],
                of_run["seed"],
                f"{run['dsc']:.3f}",
                f"{run['nsd']:.3f}",
                *("{} of {}".format(*run["detected"][band]) for band in ("all", "early")),
                f"{run['false_positives']['all']:.0f}",
                "-" if seconds is None else f"{seconds / 60:.0f}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
