"""Real liver metastases found by networks that were trained on synthetic ones only, one network per kind of tumors.

Two CTs without tumors are the bases (liver_healthy, portal venous, and abdomen_3mm, without contrast agent); the CT
with eight metastases (liver_tumors) is never trained on. Small plans at 2 mm, the same length of training and the same
first weights for every run; prediction by nnU-Net, figures by `difftumor evaluate`. Everything lies in --out; what is
done there already is kept, so that an interrupted call resumes: other settings need another --out. A comparison, not a
bar: the exit status is 0.

Runs: the presets `realistic` and `hu2023`; `diffusion_bank`, early tumors that the diffusion models of --weights drew
beforehand; `realistic_early`, hand-crafted tumors of the same sizes; and `without`, no synthetic tumors at all.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.stats import binomtest

from nnunet_difftumor import __version__
from nnunet_difftumor.demonstration.commands import Commands, nnunet_variables
from nnunet_difftumor.demonstration.pictures import draw_predictions
from nnunet_difftumor.demonstration.small_plan import SMALL_PLANS_NAME, write_small_plans
from nnunet_difftumor.files import write_json
from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares

BASES = {"liver_healthy": 1, "abdomen_3mm": 5}  # value of the liver in their label maps
TEST_CASE = "liver_tumors"
LABELS = {"liver": 1, "liver_tumor": 2}
SPACING_MM, PATCH_SIZE, FEATURES = (2.0, 2.0, 2.0), (32, 64, 64), (8, 16, 32, 64)
# A voxel of 2 mm shows little of a tiny tumor.
SIZE_WEIGHTS = {"tiny": 0.1, "small": 0.35, "medium": 0.35, "large": 0.2}
SHARES = SampleShares(real=0.3, synthetic=0.7, healthy=0.0)
DATASET_ID, DATASET_NAME, CONFIGURATION = 9, "Healthy", "3d_fullres"
DATASET = f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"
TRAINER = "nnUNetTrainerDiffTumorLabelFreeDemo"
# Models of the early stage draw tumors below 20 mm.
EARLY_WEIGHTS = {"tiny": 0.2, "small": 0.8}


@dataclass(frozen=True)
class Kind:
    """What a run is trained with.

    Attributes:
        preset: of the tumors.
        settings: of difftumor.json, beside those that all runs share.
        bank: whether diffusion models draw them beforehand.
    """

    preset: str = "realistic"
    settings: Mapping[str, Any] = field(default_factory=dict)
    bank: bool = False


KINDS = {
    "realistic": Kind(),
    "hu2023": Kind(preset="hu2023"),
    "realistic_early": Kind(settings={"size_weights": EARLY_WEIGHTS}),
    "diffusion_bank": Kind(settings={"size_weights": EARLY_WEIGHTS}, bank=True),
    "without": Kind(settings={"shares": SampleShares(real=1.0, synthetic=0.0, healthy=0.0)}),
}
_PROGRESS = r"^\S+ \S+ (Epoch \d+|Epoch time: .*)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--runs", nargs="+", choices=list(KINDS), default=["realistic", "hu2023"])
    parser.add_argument("--bases", nargs="+", choices=list(BASES), default=list(BASES), help="scans trained on")
    parser.add_argument("--weights", type=Path, help="folder of the early diffusion model of the liver")
    parser.add_argument("--per-case", type=int, default=100, help="lesions of each base in the bank")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--iterations-per-epoch", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    args = parser.parse_args()
    if any(KINDS[name].bank for name in args.runs) and args.weights is None:
        parser.error("diffusion_bank needs --weights")
    data = Path(os.environ["DIFFTUMOR_TEST_DATA"])
    training = {"epochs": args.epochs, "iterations_per_epoch": args.iterations_per_epoch, "seed": args.seed}
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(lambda name: run(args.out.absolute() / name, data, name, training, args), args.runs))
    report(args.out.absolute(), data, dict(zip(args.runs, runs, strict=True)), training, args.bases)
    return 0


def run(folder: Path, data: Path, name: str, training: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """Trains on one kind of tumors and evaluates; returns the figures."""
    kind, done = KINDS[name], folder / "run.json"
    if done.is_file():
        return json.loads(done.read_text())
    commands = Commands(nnunet_variables(folder) | {"nnUNet_n_proc_DA": "1"}, folder / "logs")
    preprocessed = folder / "nnUNet_preprocessed" / DATASET
    if not (preprocessed / f"{SMALL_PLANS_NAME}.json").is_file():
        prepare(commands, preprocessed, scans(folder / "scans", data, args.bases), kind, training)
    if kind.bank:
        fill_bank(commands, folder / "bank", preprocessed / FILE_NAME, args)
    minutes, resumed = train(commands, folder)
    predict(commands, folder, data)
    commands.run(
        *("difftumor", "evaluate", folder / "labels", folder / "predictions", "-o", folder / "tumors.json"),
        show=r"(?!)",
    )
    figures = {
        "minutes": round(minutes, 1),
        "resumed": resumed,
        "evaluation": json.loads((folder / "tumors.json").read_text()),
    }
    write_json(done, figures)
    return figures


def prepare(commands: Commands, preprocessed: Path, bases: Path, kind: Kind, training: dict[str, int]) -> None:
    """A dataset of the bases, with the settings of this kind of tumors and the small plans."""
    commands.run(
        *("difftumor", "convert", "folder", "-i", bases, "-d", DATASET_ID, "--name", DATASET_NAME),
        *("--labels", *(f"{name}={value}" for name, value in LABELS.items()), "--overwrite"),
    )
    commands.run(
        *("difftumor", "prepare", "-d", DATASET_ID, "--planner", "ExperimentPlanner", "--overwrite"),
        *("--preset", kind.preset, "--spacing", *SPACING_MM),
        show=r"^prepared:",
    )
    settings = preprocessed / FILE_NAME
    changed = {"size_weights": SIZE_WEIGHTS, "shares": SHARES, **kind.settings}
    replace(DiffTumorConfig.load(settings), seed=training["seed"], **changed).save(settings)
    length = {key: training[key] for key in ("epochs", "iterations_per_epoch")}
    write_small_plans(preprocessed, **length, patch_size=PATCH_SIZE, features=FEATURES)


def fill_bank(commands: Commands, bank: Path, settings: Path, args: argparse.Namespace) -> None:
    """Tumors that diffusion models draw beforehand, as the source of the run's."""
    commands.run(
        *("difftumor", "synthesize", "--bank", "-d", DATASET_ID, "--per-case", args.per_case, "-o", bank),
        *("--renderer", "diffusion", "--weights", args.weights.absolute()),
        show=r"lesions made|contrast of",
    )
    replace(DiffTumorConfig.load(settings), source="bank", bank_folder=str(bank)).save(settings)


def train(commands: Commands, folder: Path) -> tuple[float, bool]:
    """Minutes of the training, and whether it resumed one."""
    model = folder / "nnUNet_results" / DATASET / f"{TRAINER}__{SMALL_PLANS_NAME}__{CONFIGURATION}" / "fold_all"
    done = folder / "training.json"
    if done.is_file():  # nnU-Net would begin again, since a finished training has no checkpoint_latest.pth
        figures = json.loads(done.read_text())
        return figures["minutes"], figures["resumed"]
    resume = ["--c"] if (model / "checkpoint_latest.pth").is_file() else []
    started = time.time()
    commands.run(
        *("nnUNetv2_train", DATASET_ID, CONFIGURATION, "all", "-tr", TRAINER, "-p", SMALL_PLANS_NAME),
        *("-device", "cpu", *resume),
        show=_PROGRESS,
    )
    minutes = (time.time() - started) / 60
    write_json(done, {"minutes": minutes, "resumed": bool(resume)})
    return minutes, bool(resume)


def predict(commands: Commands, folder: Path, data: Path) -> None:
    """The CT with metastases: images/, labels/ and predictions/ of the run's folder."""
    for made, source, target in (
        ("images", "ct.nii.gz", f"{TEST_CASE}_0000.nii.gz"),
        ("labels", "labels.nii.gz", f"{TEST_CASE}.nii.gz"),
    ):
        (folder / made).mkdir(exist_ok=True)
        shutil.copyfile(data / TEST_CASE / source, folder / made / target)
    commands.run(
        *("nnUNetv2_predict", "-i", folder / "images", "-o", folder / "predictions", "-d", DATASET_ID),
        *("-c", CONFIGURATION, "-f", "all", "-tr", TRAINER, "-p", SMALL_PLANS_NAME, "-chk", "checkpoint_final.pth"),
        *("-device", "cpu", "--disable_tta", "-npp", 0, "-nps", 0),
        show=r"^There are",
    )


def scans(folder: Path, data: Path, bases: Sequence[str]) -> Path:
    """The bases, with the liver as their only label."""
    for case in bases:
        (folder / case).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / case / "ct.nii.gz", folder / case / "ct.nii.gz")
        labels = nib.load(data / case / "labels.nii.gz")
        mask = (np.asarray(labels.dataobj) == BASES[case]).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, labels.affine), folder / case / "labels.nii.gz")
    return folder


def report(
    out: Path, data: Path, runs: dict[str, dict[str, Any]], training: dict[str, int], bases: Sequence[str]
) -> None:
    """Writes result.json and picture.png, and prints the table."""
    case = data / TEST_CASE
    maps = {name: out / name / "predictions" / f"{TEST_CASE}.nii.gz" for name in runs}
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
            "bases": bases,
            "test_case": TEST_CASE,
            "spacing_mm": SPACING_MM,
            "patch_size": PATCH_SIZE,
            "features": FEATURES,
            "size_weights": SIZE_WEIGHTS,
            "size_weights_early": EARLY_WEIGHTS,
            "shares": SHARES.to_dict(),
        },
        "runs": {
            name: {
                "minutes": figures["minutes"],
                "resumed": figures["resumed"],
                "tumors": summary(figures),
                "intervals_over_tumors": {size: interval(summary(figures), size) for size in ("all", "early")},
                "evaluation": figures["evaluation"]["settings"],
            }
            for name, figures in runs.items()
        },
    }
    write_json(out / "result.json", result)
    print(f"\n{table(runs)}\n\n{out / 'result.json'}\n{out / 'picture.png'}")


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    return figures["evaluation"]["tumors"]["liver_tumor"]["summary"]


def interval(figures: dict[str, Any], size: str) -> tuple[float, float]:
    """Of the share of tumors that are found, 95 %, exact (Clopper and Pearson): over tumors, as there is one scan only.

    It takes the tumors of the scan as independent, which those of one patient are not: the truth is wider.
    """
    found = figures["tumor_sensitivity"][size]
    bounds = binomtest(round(found["value"] * found["count"]), found["count"]).proportion_ci(0.95, method="exact")
    return round(float(bounds.low), 3), round(float(bounds.high), 3)


def table(runs: dict[str, dict[str, Any]]) -> str:
    rows: list[Sequence[str]] = [("", *runs)]
    summaries = [summary(figures) for figures in runs.values()]
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
    for size in ("all", "early"):
        bounds = [interval(figures, size) for figures in summaries]
        rows.append((f"share found, {size}, 95 %", *(f"{low:.2f} to {high:.2f}" for low, high in bounds)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
