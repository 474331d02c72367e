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
from nnunet_difftumor.demo.commands import Commands, nnunet_variables, shell_script
from nnunet_difftumor.demo.journal import Journal
from nnunet_difftumor.demo.small_plan import SMALL_PLANS_NAME, coarse_spacing_mm, write_small_plans
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.preset import SIZE_BANDS_MM

PHANTOM_ID, PHANTOM_NAME = 1, "Phantom"
DATASET_ID, DATASET_NAME = 2, "Demo"
TRAINER = "nnUNetTrainerDiffTumorDemo"
CONFIGURATION = "3d_fullres"
PHANTOM_OPTIONS = ("--cases", 4, "--tumor-cases", 11, "--spacing", 4, 3, 3)
# Set in difftumor.json, so that hundreds of iterations learn tumors: no tiny ones, which have a handful of voxels on a
# grid of 3 mm or coarser, and more of the samples whose crop is sure to show a tumor.
SYNTHESIS = {"size_weights": {"small": 0.5, "medium": 0.35, "large": 0.15}, "synthetic_probability": 0.6}
# What of nnU-Net's output tells how it goes on.
_PREPARE_LINES = r"^(\[\d/6\].*|prepared:.*| {6}\S.*)"
_TRAIN_LINES = (
    r"^\S+ \S+ (Epoch \d+|Synthetic share: \S+ achieved, \S+ asked|(?:Pseudo dice|Epoch time:|predicting) .*)"
)
_PREDICT_LINES = r"^(There are \d+ cases) that I would like to predict"
_NO_LINES = r"(?!)"
NETWORKS = {"untrained": "checkpoint_untrained.pth", "trained": "checkpoint_final.pth"}


def demo(
    output: str | Path,
    *,
    data: str | Path | None = None,
    labels: Sequence[str] = ("liver=1", "liver_tumor=2"),
    epochs: int = 10,
    iterations_per_epoch: int = 80,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """From CT scans to tumors synthesized, a small network trained, and what the training gained, on a CPU.

    Args:
        output: folder for everything. What is done there already is kept, so that an interrupted call goes on.
        data: folder of cases as for `difftumor convert folder`, some of them with tumors; None: phantoms are made.
        labels: NAME=VALUE as for `difftumor convert folder`, organ and tumor; other values become background.
        epochs, iterations_per_epoch: length of the training.
        seed: of phantoms, tumors and the network's first weights.
        overwrite: starts anew.

    Returns:
        The manifest; its "scores" hold "dice" and "tumors" of the "untrained" and of the "trained" network.

    Raises:
        InputError: the data or the folder are not what is expected.
        CommandFailedError: a command failed.
    """
    for name, value in (("--epochs", epochs), ("--iterations-per-epoch", iterations_per_epoch)):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1")
    settings = {
        "version": __version__,
        "data": None if data is None else str(Path(data).absolute()),
        "labels": list(labels),
        "epochs": epochs,
        "iterations_per_epoch": iterations_per_epoch,
        "seed": seed,
    }
    if data is not None and not Path(data).is_dir():
        raise InputError(f"--data {data}: no such folder; expected one with a sub-folder for each case")
    output = Path(output).absolute()
    journal = Journal(output, settings, overwrite=overwrite)
    work = _Work(output, settings)
    steps = [
        ("scans", "scans: yours" if data else "scans: phantoms of the abdomen", work.scans),
        ("convert", "convert: nnU-Net's raw dataset", work.convert),
        ("synthesize", "synthesize: tumors of every size in a healthy scan", work.synthesize),
        ("prepare", "prepare: plans, preprocessing, folds, settings", work.prepare),
        ("train", f"train: {epochs} epochs of {iterations_per_epoch} iterations on the CPU", work.train),
        ("predict", "predict: the test cases, by the network before and after training", work.predict),
        ("evaluate", "evaluate: both against the truth", work.evaluate),
        ("report", "report: pictures, table", work.report),
    ]
    for number, (name, title, do) in enumerate(steps, 1):
        work.commands.done = []
        journal.step(number, len(steps), name, title=title, work=lambda do=do: (do(), work.commands.done)[1])
    manifest = work.manifest(journal.state)
    print(f"\n{(output / 'table.txt').read_text()}\n{_what_to_look_at(output)}", flush=True)
    return manifest


class _Work:
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
        if not self.tumor_cases:
            raise InputError(
                f"{self.scans_folder}: no case has a tumor, and without one there is nothing to measure on; add a case "
                "with real tumors. Healthy cases alone can be trained on with nnUNetTrainerDiffTumorLabelFree, see "
                "the README"
            )

    def synthesize(self) -> None:
        for size in SIZE_BANDS_MM:
            self.commands.run(
                *("difftumor", "synthesize", self.image(self.base), "--organ-mask", self.label_map(self.base)),
                *("--organ", self.organ.name, "--organ-label", *self.organ.organ_labels),
                *("--tumor-label", self.organ.tumor_label, "--avoid-label", *self.organ.avoid_labels),
                *("--size", size, "--seed", self.settings["seed"], "-o", self.folder / "synthetic" / size),
            )

    def prepare(self) -> None:
        from nnunet_difftumor.pipeline.config import FILE_NAME, DiffTumorConfig

        spacing = coarse_spacing_mm(self.cases)
        self.commands.run(
            *("difftumor", "prepare", "-d", DATASET_ID, "--planner", "ExperimentPlanner", "--spacing", *spacing),
            show=_PREPARE_LINES,
        )
        path = self.preprocessed / FILE_NAME
        config = replace(DiffTumorConfig.load(path), seed=self.settings["seed"], **SYNTHESIS)
        if len(self.tumor_cases) == len(self.cases):
            print("      no healthy case: tumors are put into the cases with real ones (real_cases_as_bases)")
            config = replace(config, real_cases_as_bases=True)
        config.save(path)
        training = {key: self.settings[key] for key in ("epochs", "iterations_per_epoch", "seed")}
        print(f"      a small network for the CPU: {write_small_plans(self.preprocessed, **training)}")

    def train(self) -> None:
        fold = self.folder / "nnUNet_results" / self.raw.name / f"{TRAINER}__{SMALL_PLANS_NAME}__{CONFIGURATION}/fold_0"
        begun = any((fold / f"checkpoint_{which}.pth").is_file() for which in ("latest", "final"))
        self.commands.run(
            *("nnUNetv2_train", DATASET_ID, CONFIGURATION, 0, "-tr", TRAINER, "-p", SMALL_PLANS_NAME),
            *("-device", "cpu", *(["--c"] if begun else [])),
            show=_TRAIN_LINES,
        )
        shutil.copyfile(fold / "synthetic_samples.png", self.folder / "training_samples.png")

    def predict(self) -> None:
        for case in self.test_cases:
            for source, name in ((self.image(case), "images"), (self.label_map(case), "labels")):
                (self.test / name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, self.test / name / source.name)
        for network, checkpoint in NETWORKS.items():
            self.commands.run(
                *("nnUNetv2_predict", "-i", self.test / "images", "-o", self.predictions(network), "-d", DATASET_ID),
                *("-c", CONFIGURATION, "-f", 0, "-tr", TRAINER, "-p", SMALL_PLANS_NAME, "-chk", checkpoint),
                *("-device", "cpu", "--disable_tta", "--disable_progress_bar", "-npp", 0, "-nps", 0),
                show=_PREDICT_LINES,
            )

    def evaluate(self) -> None:
        labels = self.test / "labels"
        for network in NETWORKS:
            folder = self.predictions(network)
            self.commands.run(
                *("nnUNetv2_evaluate_folder", labels, folder, "-np", 1),
                *("-djfile", folder / "dataset.json", "-pfile", folder / "plans.json"),
                show=_NO_LINES,
            )
            self.commands.run("difftumor", "evaluate", labels, folder, "-o", self.tumors_json(network), show=_NO_LINES)

    def report(self) -> None:
        from nnunet_difftumor.demo.pictures import draw_predictions
        from nnunet_difftumor.demo.scores import dice_by_label, table

        cases = [
            (
                case,
                self.image(case),
                {"truth": self.label_map(case)}
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
        text = table(dice, tumors, cases=self.test_cases, seen=self.tested_on_training_cases)
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

    @cached_property
    def test_cases(self) -> list[str]:
        """Fold 0 holds them out, unless there is one case with tumors only."""
        return list(self._fold["val"])

    @property
    def tested_on_training_cases(self) -> bool:
        return bool(set(self._fold["val"]) & set(self._fold["train"]))

    def image(self, case: str) -> Path:
        return self.raw / "imagesTr" / f"{case}_0000.nii.gz"

    def label_map(self, case: str) -> Path:
        return self.raw / "labelsTr" / f"{case}.nii.gz"

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


def _what_to_look_at(folder: Path) -> str:
    lines = {
        "synthetic/*/preview.png": "synthetic tumors by size, before and after",
        "training_samples.png": "a training batch, as the network got it",
        "predictions.png": "the test cases: truth, untrained, trained",
        "table.txt, scores.json": "the figures above, and all others",
        "commands.sh": "all commands, to run or to change",
        "manifest.json": "versions, settings, times, files",
    }
    width = max(map(len, lines))
    return "\n".join([f"Everything is in {folder}", *(f"  {name:<{width}}  {what}" for name, what in lines.items())])
