"""Real liver metastases found by networks that were trained on synthetic ones only: an experiment over arms and seeds.

Two CTs without tumors are the bases (liver_healthy, portal venous, and abdomen_3mm, without contrast agent); the CT
with eight metastases (liver_tumors) is never trained on. `difftumor experiment` trains, predicts and evaluates every
arm with every seed, from the same first weights by seed and for as many steps. On a CPU: a small network at 2 mm. With
--device cuda: nnU-Net's own plans, spacing and patch. Everything lies in --out; what is done there already is kept, so
that an interrupted call resumes: other settings need another --out. A comparison, not a bar: the exit status is 0.

Arms: `without` synthetic tumors; `placebo`, the masks of `realistic` with a wrong look; the presets `hu2023` and
`realistic`; `diffusion_bank`, early tumors that the diffusion models of --weights drew beforehand; `realistic_early`,
hand-crafted tumors of the same sizes.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import label_free_result as result
import nibabel as nib
import numpy as np
import yaml
from result_rows import provenance

from nnunet_difftumor.demonstration.commands import Commands, nnunet_variables
from nnunet_difftumor.demonstration.small_plan import SMALL_PLANS_NAME, write_small_plans
from nnunet_difftumor.files import write_json
from nnunet_difftumor.prepared.config import FILE_NAME, PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares

BASES = {"liver_healthy": 1, "abdomen_3mm": 5}  # value of the liver in their label maps
TEST_CASE = "liver_tumors"
LABELS = {"liver": 1, "liver_tumor": 2}
SPACING_MM, PATCH_SIZE, FEATURES = (2.0, 2.0, 2.0), (32, 64, 64), (8, 16, 32, 64)
# A voxel of 2 mm shows little of a tiny tumor.
SIZE_WEIGHTS = {"tiny": 0.1, "small": 0.35, "medium": 0.35, "large": 0.2}
SHARES = SampleShares(real=0.3, synthetic=0.7, healthy=0.0)
DATASET_ID, DATASET_NAME = 9, "Healthy"
DATASET = f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"
TRAINER = "nnUNetTrainerDiffTumorLabelFreeDemo"
BASELINE = "without"
# Models of the early stage draw tumors below 20 mm.
EARLY_WEIGHTS = {"tiny": 0.2, "small": 0.8}
# Settings of difftumor.json, beside those that all arms share.
ARMS: dict[str, dict[str, Any]] = {
    BASELINE: {"shares": {"real": 1.0, "synthetic": 0.0, "healthy": 0.0}},
    "placebo": {"preset": "placebo"},
    "hu2023": {"preset": "hu2023"},
    "realistic": {},
    "realistic_early": {"size_weights": EARLY_WEIGHTS},
    "diffusion_bank": {"size_weights": EARLY_WEIGHTS, "source": "bank"},
}
USUAL_ARMS = (BASELINE, "placebo", "hu2023", "realistic")
# What is trained to learn how fast the machine is.
PACE = {"epochs": 2, "iterations_per_epoch": 20}
_LINES = r"^(?:\[\d+/\d+\]|finished:|time:|prepared:|lesions made|contrast of)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(USUAL_ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--weights", type=Path, help="folder of the early diffusion model of the liver")
    parser.add_argument("--per-case", type=int, default=100, help="lesions of each base in the bank")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--iterations-per-epoch", type=int, default=80)
    parser.add_argument("--minutes", type=float, help="of the whole call: trainings are as long as fits")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    args = parser.parse_args()
    if BASELINE not in args.arms or len(args.arms) < 2:
        parser.error(f"--arms needs {BASELINE} and another arm")
    if "diffusion_bank" in args.arms and args.weights is None:
        parser.error("diffusion_bank needs --weights")
    Benchmark(args).run()
    return 0


class Benchmark:
    """One call."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out, self.started = args, args.out.absolute(), time.monotonic()
        self.data = Path(os.environ["DIFFTUMOR_TEST_DATA"])
        self.small = args.device == "cpu"
        # Two minutes of compilation would be most of a short training.
        processes = {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"} if self.small else {"nnUNet_compile": "f"}
        self.commands = Commands(nnunet_variables(self.out) | processes, self.out / "logs")
        self.preprocessed = self.out / "nnUNet_preprocessed" / DATASET

    def run(self) -> None:
        if not (self.out / "prepared").is_file():
            self.prepare()
        if "diffusion_bank" in self.args.arms:
            self.fill_bank()
        self.copy_test_case()
        length = {"epochs": self.args.epochs, "iterations_per_epoch": self.args.iterations_per_epoch}
        if self.args.minutes is not None:
            length = self.length_that_fits()
        folder = self.experiment("experiment", self.args.seeds, length)
        result.report(
            folder,
            self.out,
            made=provenance(self.args.device),
            settings=self.settings(),
            labels=LABELS,
            tumor="liver_tumor",
            case=(TEST_CASE, self.data / TEST_CASE / "ct.nii.gz", self.out / "labels" / f"{TEST_CASE}.nii.gz"),
        )

    def prepare(self) -> None:
        """A dataset of the bases, with the settings that all arms share, and the small plans on a CPU."""
        self.commands.run(
            *("difftumor", "convert", "folder", "-i", self.scans(), "-d", DATASET_ID, "--name", DATASET_NAME),
            *("--labels", *(f"{name}={value}" for name, value in LABELS.items()), "--overwrite"),
        )
        self.commands.run(
            *("difftumor", "prepare", "-d", DATASET_ID, "--planner", "ExperimentPlanner", "--overwrite"),
            *(("--spacing", *SPACING_MM) if self.small else ()),
            show=_LINES,
        )
        settings = self.preprocessed / FILE_NAME
        replace(DiffTumorConfig.load(settings), size_weights=SIZE_WEIGHTS, shares=SHARES).save(settings)
        if self.small:
            write_small_plans(self.preprocessed, **PACE, patch_size=PATCH_SIZE, features=FEATURES)
        (self.out / "prepared").touch()

    def fill_bank(self) -> None:
        """Tumors that diffusion models draw beforehand; a bank that is full stays."""
        self.commands.run(
            *("difftumor", "synthesize", "--bank", "-d", DATASET_ID, "--per-case", self.args.per_case),
            *("-o", self.out / "bank", "--renderer", "diffusion", "--weights", self.args.weights.absolute()),
            show=_LINES,
        )

    def scans(self) -> Path:
        """The bases, with the liver as their only label."""
        folder = self.out / "scans"
        for case, liver in BASES.items():
            (folder / case).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.data / case / "ct.nii.gz", folder / case / "ct.nii.gz")
            labels = nib.load(self.data / case / "labels.nii.gz")
            mask = (np.asarray(labels.dataobj) == liver).astype(np.uint8)
            nib.save(nib.Nifti1Image(mask, labels.affine), folder / case / "labels.nii.gz")
        return folder

    def copy_test_case(self) -> None:
        for made, source, target in (
            ("images", "ct.nii.gz", f"{TEST_CASE}_0000.nii.gz"),
            ("labels", "labels.nii.gz", f"{TEST_CASE}.nii.gz"),
        ):
            (self.out / made).mkdir(exist_ok=True)
            shutil.copyfile(self.data / TEST_CASE / source, self.out / made / target)

    def experiment(self, name: str, seeds: Sequence[int], length: Mapping[str, int]) -> Path:
        """Does an experiment; returns its folder."""
        plan = {
            "name": name,
            "about": "Do synthetic tumors alone teach to find real ones, and does it matter what they look like?",
            "dataset": DATASET_ID,
            "baseline": BASELINE,
            "seeds": list(seeds),
            **length,
            "plans": SMALL_PLANS_NAME if self.small else PLANS_NAME,
            "folds": ["all"],
            "device": self.args.device,
            "arms": {arm: {"trainer": TRAINER, "settings": self.settings_of(arm)} for arm in self.args.arms},
            "test": {"images": "images", "labels": "labels"},
        }
        path = self.out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plan, sort_keys=False))
        self.commands.run(
            *("difftumor", "experiment", path, "-o", self.out / name, "--jobs", self.args.jobs), show=_LINES
        )
        return self.out / name

    def settings_of(self, arm: str) -> dict[str, Any]:
        bank = {"bank_folder": str(self.out / "bank")} if arm == "diffusion_bank" else {}
        return ARMS[arm] | bank

    def length_that_fits(self) -> dict[str, int]:
        """Trains every arm for a moment, and divides what is left; noted, for a call that resumes."""
        path = self.out / "length.json"
        if path.is_file():
            return json.loads(path.read_text())
        started = time.monotonic()
        folder = self.experiment("pace", self.args.seeds[:1], PACE)
        pace_s, arms = time.monotonic() - started, len(self.args.arms)
        rounds_of_pace = -(-arms // self.args.jobs)
        rounds = -(-arms * len(self.args.seeds) // self.args.jobs)
        left_s = 60 * self.args.minutes - (time.monotonic() - self.started)
        of_epochs = [epoch_s(log) for log in folder.rglob("training_log*.txt")]
        length = fitting_length(
            left_s / rounds - pace_s / rounds_of_pace,
            median(of_epochs) / PACE["iterations_per_epoch"],
            most_per_epoch=self.args.iterations_per_epoch,
        )
        if length is None:
            sys.exit(
                f"--minutes {self.args.minutes:g} is too short for {rounds} rounds of runs, of which each takes "
                f"{pace_s / rounds_of_pace:.0f} s for {PACE['epochs'] * PACE['iterations_per_epoch']} iterations"
            )
        write_json(path, length)
        return length

    def settings(self) -> dict[str, Any]:
        of_plans = {"patch_size": PATCH_SIZE, "features": FEATURES, "spacing_mm": SPACING_MM} if self.small else {}
        return {
            "bases": list(BASES),
            "test_case": TEST_CASE,
            "jobs": self.args.jobs,
            "minutes": self.args.minutes,
            "size_weights": SIZE_WEIGHTS,
            "shares": SHARES.to_dict(),
            "plans": "small" if self.small else "of nnU-Net",
            **of_plans,
        }


def fitting_length(spare_s: float, iteration_s: float, *, most_per_epoch: int) -> dict[str, int] | None:
    """Epochs, two at least, and iterations of a training.

    Args:
        spare_s: time for a training, less that of a short one, which has everything around it.
        iteration_s: time of an iteration.
        most_per_epoch: iterations.

    Returns:
        None: not even two epochs as short as those of the pace fit.
    """
    iterations = int(spare_s / iteration_s)
    if iterations < 2 * PACE["iterations_per_epoch"]:
        return None
    per_epoch = min(most_per_epoch, iterations // 2)
    return {"epochs": iterations // per_epoch, "iterations_per_epoch": per_epoch}


def epoch_s(log: Path) -> float:
    """Of the last epoch in nnU-Net's log, when everything is warm."""
    return float(re.findall(r"Epoch time: ([\d.]+) s", log.read_text())[-1])


if __name__ == "__main__":
    sys.exit(main())
