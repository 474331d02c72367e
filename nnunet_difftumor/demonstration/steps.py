"""The steps of the demo, each made of the commands that a user would type."""

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_difftumor import __version__
from nnunet_difftumor.demonstration.commands import Commands, nnunet_variables, shell_script
from nnunet_difftumor.demonstration.scores import MIN_IOU
from nnunet_difftumor.demonstration.small_plan import SMALL_PLANS_NAME, coarse_spacing_mm, write_small_plans
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

PHANTOM_ID, PHANTOM_NAME = 1, "Phantom"
DATASET_ID, DATASET_NAME = 2, "Demo"
TRAINER, LABEL_FREE_TRAINER = "nnUNetTrainerDiffTumorDemo", "nnUNetTrainerDiffTumorLabelFreeDemo"
CONFIGURATION = "3d_fullres"
PHANTOM_OPTIONS = ("--cases", 4, "--tumor-cases", 11, "--spacing", 4, 3, 3)
# Set in difftumor.json, so that hundreds of iterations learn tumors: no tiny ones, which have a handful of voxels on a
# grid of 3 mm or coarser, and more of the samples whose crop is sure to show a tumor.
SYNTHESIS = {
    "size_weights": {"small": 0.5, "medium": 0.35, "large": 0.15},
    "shares": SampleShares(real=0.4, synthetic=0.6, healthy=0.0),
}
# Where all tumors are synthetic, those in an organ without contrast agent would be 8 HU darker than it: realistic, and
# less than a small network finds.
LABEL_FREE_CONTRAST_HU = (-50.0, -25.0)
LABEL_FREE_TEST_SIZES = ("small", "medium")
# What of nnU-Net's output tells how far it is.
_PREPARE_LINES = r"^(\[\d/6\].*|prepared:.*| {6}\S.*)"
_TRAIN_LINES = (
    r"^\S+ \S+ (Epoch \d+|Synthetic share: \S+ achieved, \S+ asked|(?:Pseudo dice|Epoch time:|predicting) .*)"
)
_PREDICT_LINES = r"^(There are \d+ cases) that I would like to predict"
_NO_LINES = r"(?!)"
NETWORKS = {"untrained": "checkpoint_untrained.pth", "trained": "checkpoint_final.pth"}


class Steps:
    """The steps' work, and where its results lie in the output folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.scans_folder = Path(settings["data"] or folder / "scans")
        self.raw = folder / "nnUNet_raw" / f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"
        self.preprocessed = folder / "nnUNet_preprocessed" / self.raw.name
        self.test = folder / "test_cases"
        self.commands = Commands(nnunet_variables(folder), folder / "logs")

    def scans(self) -> None:
        """Phantoms, laid out as a user's data are."""
        if self.settings["data"]:
            print(f"      {self.scans_folder}")
            return
        seed = self.settings["seed"]
        self.commands.run(
            *("difftumor", "convert", "phantom", "-d", PHANTOM_ID, *PHANTOM_OPTIONS, "--seed", seed, "--overwrite")
        )
        phantoms = self.folder / "nnUNet_raw" / f"Dataset{PHANTOM_ID:03d}_{PHANTOM_NAME}"
        for label_map in sorted((phantoms / "labelsTr").iterdir()):
            name = label_map.name.removesuffix(".nii.gz")
            (self.scans_folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(label_map, self.scans_folder / name / "labels.nii.gz")
            shutil.copyfile(phantoms / "imagesTr" / f"{name}_0000.nii.gz", self.scans_folder / name / "ct.nii.gz")

    def convert(self) -> None:
        self.commands.run(
            *("difftumor", "convert", "folder", "-i", self.scans_folder, "-d", DATASET_ID, "--name", DATASET_NAME),
            *("--labels", *self.settings["labels"], "--ignore-other-labels", "--overwrite"),
        )
        if self.label_free:
            print("      no case has a tumor: label-free training, and test cases with synthetic tumors")

    def synthesize(self) -> None:
        for size in SIZE_BANDS_MM:
            self._synthesize(self.base, self.folder / "synthetic" / size, size=size, seed=self.settings["seed"])

    def _synthesize(self, case: str, output: Path, *, size: str, seed: int, options: Sequence[object] = ()) -> None:
        self.commands.run(
            *("difftumor", "synthesize", self.image(case), "--organ-mask", self.label_map(case)),
            *("--organ", self.organ.name, "--organ-label", *self.organ.organ_labels),
            *("--tumor-label", self.organ.tumor_label, "--avoid-label", *self.organ.avoid_labels),
            *("--size", size, "--seed", seed, *options, "-o", output),
        )

    def prepare(self) -> None:
        from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig

        spacing = coarse_spacing_mm(self.cases)
        self.commands.run(
            *("difftumor", "prepare", "-d", DATASET_ID, "--planner", "ExperimentPlanner", "--spacing", *spacing),
            show=_PREPARE_LINES,
        )
        path = self.preprocessed / FILE_NAME
        config = replace(DiffTumorConfig.load(path), seed=self.settings["seed"], **SYNTHESIS)
        if self.label_free:
            config = replace(config, contrast_hu=LABEL_FREE_CONTRAST_HU)
        elif len(self.tumor_cases) == len(self.cases):
            print("      no healthy case: tumors are put into the cases with real ones (real_cases_as_bases)")
            config = replace(config, real_cases_as_bases=True)
        config.save(path)
        training = {key: self.settings[key] for key in ("epochs", "iterations_per_epoch")}
        print(f"      a small network for the CPU: {write_small_plans(self.preprocessed, **training)}")

    def train(self) -> None:
        fold = (
            self.folder
            / "nnUNet_results"
            / self.raw.name
            / f"{self.trainer}__{SMALL_PLANS_NAME}__{CONFIGURATION}/fold_0"
        )
        begun = any((fold / f"checkpoint_{which}.pth").is_file() for which in ("latest", "final"))
        self.commands.run(
            *("nnUNetv2_train", DATASET_ID, CONFIGURATION, 0, "-tr", self.trainer, "-p", SMALL_PLANS_NAME),
            *("-device", "cpu", *(["--c"] if begun else [])),
            show=_TRAIN_LINES,
        )
        shutil.copyfile(fold / "synthetic_samples.png", self.folder / "training_samples.png")

    def predict(self) -> None:
        if self.label_free:
            self._make_test_cases()
        else:
            for case in self.test_cases:
                self._add_test_case(case, self.image(case), self.label_map(case))
        from nnunet_difftumor.trainers.demo import TILE_STEP

        for network, checkpoint in NETWORKS.items():
            self.commands.run(
                *("nnUNetv2_predict", "-i", self.test / "images", "-o", self.predictions(network), "-d", DATASET_ID),
                *("-c", CONFIGURATION, "-f", 0, "-tr", self.trainer, "-p", SMALL_PLANS_NAME, "-chk", checkpoint),
                *("-device", "cpu", "--disable_tta", "--disable_progress_bar", "-npp", 0, "-nps", 0),
                *("-step_size", TILE_STEP),
                show=_PREDICT_LINES,
            )

    def _make_test_cases(self) -> None:
        """Other tumors than those of the training, in scans that it did not see, as far as there are any."""
        for number, (case, size) in enumerate(zip(self._test_bases, LABEL_FREE_TEST_SIZES, strict=True)):
            output, options = self.folder / "synthetic_test" / size, ("--contrast-hu", *LABEL_FREE_CONTRAST_HU)
            seed = self.settings["seed"] + 1 + number
            self._synthesize(case, output, size=size, seed=seed, options=("--count", 3, *options))
            self._add_test_case(f"{case}_{size}", output / "ct.nii.gz", output / "labels.nii.gz")

    def _add_test_case(self, case: str, ct: Path, label_map: Path) -> None:
        for source, target in ((ct, self.test_image(case)), (label_map, self.test_label_map(case))):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def evaluate(self) -> None:
        labels = self.test / "labels"
        for network in NETWORKS:
            folder = self.predictions(network)
            self.commands.run(
                *("nnUNetv2_evaluate_folder", labels, folder, "-np", 1),
                *("-djfile", folder / "dataset.json", "-pfile", folder / "plans.json"),
                show=_NO_LINES,
            )
            self.commands.run(
                *("difftumor", "evaluate", labels, folder, "--match", "iou", "--min-iou", MIN_IOU),
                *("-o", self.tumors_json(network)),
                show=_NO_LINES,
            )

    def report(self) -> None:
        from nnunet_difftumor.demonstration.pictures import draw_predictions
        from nnunet_difftumor.demonstration.scores import dice_by_label, table

        cases = [
            (
                case,
                self.test_image(case),
                {"truth": self.test_label_map(case)}
                | {network: self.predictions(network) / f"{case}.nii.gz" for network in NETWORKS},
            )
            for case in self.test_cases
        ]
        draw_predictions(
            self.folder / "predictions.png",
            cases,
            labels=self.labels,
            tumor_labels=[o.tumor_label for o in self.organs],
        )
        summaries = {network: self.predictions(network) / "summary.json" for network in NETWORKS}
        dice = {
            network: dice_by_label(json.loads(path.read_text()), self.labels) for network, path in summaries.items()
        }
        tumors = {network: json.loads(self.tumors_json(network).read_text())["tumors"] for network in NETWORKS}
        write_json(self.folder / "scores.json", {"dice": dice, "tumors": tumors})
        text = table(dice, tumors, cases=self.test_cases, caution=self.caution())
        (self.folder / "table.txt").write_text(text + "\n")

    def manifest(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Written at the very end: settings, versions, steps with their commands and times, scores, files."""
        commands = [command for step in state["steps"].values() for command in step["commands"]]
        (self.folder / "commands.sh").write_text(shell_script(self.commands.variables, commands))
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
        packages = ("nnunetv2", "torch", "numpy", "scipy", "SimpleITK", "nibabel")
        manifest = {
            **state,
            "versions": {
                "nnunet_difftumor": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                **{package: version(package) for package in packages},
            },
            "test_cases": self.test_cases,
            "tested_on_training_cases": self.tested_on_training_cases,
            "scores": json.loads((self.folder / "scores.json").read_text()),
            "files": {
                path.relative_to(self.folder).as_posix(): path.stat().st_size
                for path in sorted(files)
                if not path.relative_to(self.folder).parts[0].startswith("nnUNet_")
            },
        }
        write_json(self.folder / "manifest.json", manifest)
        return manifest

    @cached_property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Facts of the converted cases, by name."""
        return json.loads((self.raw / "conversion_report.json").read_text())["cases"]

    @cached_property
    def labels(self) -> dict[str, int]:
        return {name: value for name, value in self._dataset_json["labels"].items() if value}

    @cached_property
    def organs(self) -> tuple[Organ, ...]:
        from nnunet_difftumor.preparation.organs import find_organs

        return find_organs(self._dataset_json)

    @property
    def organ(self) -> Organ:
        """The one that the pictures of synthetic tumors are about."""
        return self.organs[0]

    @property
    def tumor_cases(self) -> list[str]:
        tumors = {name for name, value in self.labels.items() if value in {o.tumor_label for o in self.organs}}
        return [case for case, facts in self.cases.items() if any(facts["volume_ml"][name] for name in tumors)]

    @property
    def base(self) -> str:
        """A case that has the organ, healthy if there is one."""
        with_organ = [
            case
            for case, facts in self.cases.items()
            if any(facts["volume_ml"][name] for name, value in self.labels.items() if value in self.organ.organ_labels)
        ]
        if not with_organ:
            raise InputError(f"{self.scans_folder}: no case has the label {self.organ.name}; check --labels")
        return min(with_organ, key=lambda case: case in self.tumor_cases)

    @property
    def label_free(self) -> bool:
        return not self.tumor_cases

    @property
    def trainer(self) -> str:
        return LABEL_FREE_TRAINER if self.label_free else TRAINER

    @cached_property
    def test_cases(self) -> list[str]:
        """Fold 0 holds them out, unless there is one case only."""
        if self.label_free:
            return [f"{case}_{size}" for case, size in zip(self._test_bases, LABEL_FREE_TEST_SIZES, strict=True)]
        return list(self._fold["val"])

    @property
    def _test_bases(self) -> list[str]:
        held_out = self._fold["label_free_val"]
        return [held_out[number % len(held_out)] for number in range(len(LABEL_FREE_TEST_SIZES))]

    @property
    def tested_on_training_cases(self) -> bool:
        if self.label_free:
            return self._fold["synthesis_bases"] == self._fold["label_free_val"]
        return bool(set(self._fold["val"]) & set(self._fold["train"]))

    def caution(self) -> list[str]:
        """Why the figures are better than those of other patients would be."""
        lines = []
        if self.label_free:
            lines.append("SYNTHETIC TUMORS in the test cases: real ones look different.")
        if self.tested_on_training_cases:
            what, which = ("SCAN", "") if self.label_free else ("CASES", " with tumors")
            lines.append(f"TRAINED ON THE {what} THAT IT IS TESTED ON, for there is only one{which}:")
        if lines:
            lines.append("this shows that the software works, and says nothing about other patients.")
        return lines

    def image(self, case: str) -> Path:
        return self.raw / "imagesTr" / f"{case}_0000.nii.gz"

    def label_map(self, case: str) -> Path:
        return self.raw / "labelsTr" / f"{case}.nii.gz"

    def test_image(self, case: str) -> Path:
        return self.test / "images" / f"{case}_0000.nii.gz"

    def test_label_map(self, case: str) -> Path:
        return self.test / "labels" / f"{case}.nii.gz"

    def predictions(self, network: str) -> Path:
        return self.folder / "predictions" / network

    def tumors_json(self, network: str) -> Path:
        return self.folder / "predictions" / f"{network}_tumors.json"

    @cached_property
    def _dataset_json(self) -> dict[str, Any]:
        return json.loads((self.raw / "dataset.json").read_text())

    @cached_property
    def _fold(self) -> dict[str, Any]:
        return json.loads((self.preprocessed / "splits_final.json").read_text())[0]
