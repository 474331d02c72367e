"""Real liver metastases found by networks that were trained on synthetic ones only, one network per preset.

Two CTs without tumors are the bases (liver_healthy, portal venous, and abdomen_3mm, without contrast agent); the CT
with eight metastases (liver_tumors) is never trained on. Small plans at 2 mm, the same length of training and the same
first weights for every preset; prediction by nnU-Net, figures by `difftumor evaluate`. Everything lies in --out; what
is done there already is kept, so that an interrupted call goes on. A comparison, not a bar: the exit status is 0.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from nnunet_difftumor import __version__
from nnunet_difftumor.demo.commands import Commands, nnunet_variables
from nnunet_difftumor.demo.pictures import draw_predictions
from nnunet_difftumor.demo.small_plan import SMALL_PLANS_NAME, write_small_plans
from nnunet_difftumor.files import write_json
from nnunet_difftumor.pipeline.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.synthesis.presets import PRESETS

BASES = {"liver_healthy": 1, "abdomen_3mm": 5}  # value of the liver in their label maps
TEST_CASE = "liver_tumors"
LABELS = {"liver": 1, "liver_tumor": 2}
SPACING_MM, PATCH_SIZE, FEATURES = (2.0, 2.0, 2.0), (32, 64, 64), (8, 16, 32, 64)
# A voxel of 2 mm shows little of a tiny tumor.
SIZE_WEIGHTS = {"tiny": 0.1, "small": 0.35, "medium": 0.35, "large": 0.2}
SYNTHETIC_PROBABILITY = 0.7
DATASET_ID, DATASET_NAME, CONFIGURATION = 9, "Healthy", "3d_fullres"
TRAINER = "nnUNetTrainerDiffTumorLabelFreeDemo"
_PROGRESS = r"^\S+ \S+ (Epoch \d+|Epoch time: .*)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["realistic", "hu2023"])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--iterations-per-epoch", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="presets trained at the same time")
    args = parser.parse_args()
    data = Path(os.environ["DIFFTUMOR_TEST_DATA"])
    training = {"epochs": args.epochs, "iterations_per_epoch": args.iterations_per_epoch, "seed": args.seed}
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(lambda preset: run(args.out.absolute() / preset, data, preset, training), args.presets))
    report(args.out.absolute(), data, dict(zip(args.presets, runs, strict=True)), training)
    return 0


def run(folder: Path, data: Path, preset: str, training: dict[str, int]) -> dict[str, Any]:
    """Trains on one preset and evaluates; returns the figures."""
    done = folder / "run.json"
    if done.is_file():
        return json.loads(done.read_text())
    commands = Commands(nnunet_variables(folder) | {"nnUNet_n_proc_DA": "1"}, folder / "logs")
    dataset = f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"
    preprocessed = folder / "nnUNet_preprocessed" / dataset
    if not (preprocessed / f"{SMALL_PLANS_NAME}.json").is_file():
        commands.run(
            *("difftumor", "convert", "folder", "-i", scans(folder / "scans", data), "-d", DATASET_ID),
            *(
                "--name",
                DATASET_NAME,
                "--labels",
                *(f"{name}={value}" for name, value in LABELS.items()),
                "--overwrite",
            ),
        )
        commands.run(
            *("difftumor", "prepare", "-d", DATASET_ID, "--planner", "ExperimentPlanner", "--overwrite"),
            *("--preset", preset, "--spacing", *SPACING_MM),
            show=r"^prepared:",
        )
        settings = preprocessed / FILE_NAME
        changed = {"size_weights": SIZE_WEIGHTS, "synthetic_probability": SYNTHETIC_PROBABILITY}
        replace(DiffTumorConfig.load(settings), seed=training["seed"], **changed).save(settings)
        write_small_plans(preprocessed, **training, patch_size=PATCH_SIZE, features=FEATURES)
    model = folder / "nnUNet_results" / dataset / f"{TRAINER}__{SMALL_PLANS_NAME}__{CONFIGURATION}" / "fold_all"
    resume = ["--c"] if (model / "checkpoint_latest.pth").is_file() else []
    started = time.time()
    commands.run(
        *("nnUNetv2_train", DATASET_ID, CONFIGURATION, "all", "-tr", TRAINER, "-p", SMALL_PLANS_NAME),
        *("-device", "cpu", *resume),
        show=_PROGRESS,
    )
    minutes = (time.time() - started) / 60
    (folder / "images").mkdir(exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    shutil.copyfile(data / TEST_CASE / "ct.nii.gz", folder / "images" / f"{TEST_CASE}_0000.nii.gz")
    shutil.copyfile(data / TEST_CASE / "labels.nii.gz", folder / "labels" / f"{TEST_CASE}.nii.gz")
    predictions = folder / "predictions"
    commands.run(
        *("nnUNetv2_predict", "-i", folder / "images", "-o", predictions, "-d", DATASET_ID, "-c", CONFIGURATION),
        *("-f", "all", "-tr", TRAINER, "-p", SMALL_PLANS_NAME, "-chk", "checkpoint_final.pth", "-device", "cpu"),
        *("--disable_tta", "-npp", 0, "-nps", 0),
        show=r"^There are",
    )
    commands.run("difftumor", "evaluate", folder / "labels", predictions, "-o", folder / "tumors.json", show=r"(?!)")
    figures = {
        "minutes": round(minutes, 1),
        "resumed": bool(resume),
        "evaluation": json.loads((folder / "tumors.json").read_text()),
    }
    write_json(done, figures)
    return figures


def scans(folder: Path, data: Path) -> Path:
    """The bases, with the liver as their only label."""
    for case, liver in BASES.items():
        (folder / case).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / case / "ct.nii.gz", folder / case / "ct.nii.gz")
        labels = nib.load(data / case / "labels.nii.gz")
        mask = (np.asarray(labels.dataobj) == liver).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, labels.affine), folder / case / "labels.nii.gz")
    return folder


def report(out: Path, data: Path, runs: dict[str, dict[str, Any]], training: dict[str, int]) -> None:
    """Writes result.json and picture.png, and prints the table."""
    case = data / TEST_CASE
    maps = {preset: out / preset / "predictions" / f"{TEST_CASE}.nii.gz" for preset in runs}
    draw_predictions(
        out / "picture.png",
        [(TEST_CASE, case / "ct.nii.gz", {"truth": case / "labels.nii.gz", **maps})],
        labels=LABELS,
        tumor_labels=[LABELS["liver_tumor"]],
    )
    result = {
        "commit": subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "versions": {"nnunet_difftumor": __version__}
        | {package: version(package) for package in ("nnunetv2", "torch", "numpy", "scipy")},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "settings": {
            **training,
            "bases": list(BASES),
            "test_case": TEST_CASE,
            "spacing_mm": SPACING_MM,
            "patch_size": PATCH_SIZE,
            "features": FEATURES,
            "size_weights": SIZE_WEIGHTS,
            "synthetic_probability": SYNTHETIC_PROBABILITY,
        },
        "runs": {
            preset: {
                "minutes": figures["minutes"],
                "resumed": figures["resumed"],
                "tumors": figures["evaluation"]["tumors"]["liver_tumor"]["summary"],
                "evaluation": figures["evaluation"]["settings"],
            }
            for preset, figures in runs.items()
        },
    }
    write_json(out / "result.json", result)
    print(f"\n{table(runs)}\n\n{out / 'result.json'}\n{out / 'picture.png'}")


def table(runs: dict[str, dict[str, Any]]) -> str:
    rows: list[Sequence[str]] = [("", *runs)]
    summaries = [figures["evaluation"]["tumors"]["liver_tumor"]["summary"] for figures in runs.values()]
    rows.append(("minutes of training", *(f"{figures['minutes']:.0f}" for figures in runs.values())))
    for key in ("dsc", "nsd"):
        rows.append((f"tumors, {key.upper()}", *(f"{summary[key]['value']:.3f}" for summary in summaries)))
    for key, title in (("tumor_sensitivity", "tumors found"), ("false_positives_per_scan", "false positives")):
        for band in summaries[0][key]:
            values = [summary[key][band] for summary in summaries]
            if key == "tumor_sensitivity":
                shown = [f"{round(v['value'] * v['count'])} of {v['count']}" if v["count"] else "-" for v in values]
            else:
                shown = [f"{v['value']:.1f}" for v in values]
            rows.append((f"{title}, {band}", *shown))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
