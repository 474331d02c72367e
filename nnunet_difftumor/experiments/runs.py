"""The runs that a plan expands into: one training of one arm, and the commands of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.experiments.planning.plan import Arm, Measures, Plan
from nnunet_difftumor.names import nearest_name

CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        plan: that it is of.
        arm, seed, fold: which one.
        folder: of everything that it makes.
        dataset_folder: of the prepared dataset.
    """

    plan: Plan
    arm: str
    seed: int
    fold: int | str
    folder: Path
    dataset_folder: Path

    @property
    def name(self) -> str:
        return f"{self.arm}_seed_{self.seed}_fold_{self.fold}"

    @property
    def of_arm(self) -> Arm:
        return self.plan.arms[self.arm]

    @property
    def preprocessed(self) -> Path:
        """The dataset as this run trains on it."""
        return self.folder / "nnUNet_preprocessed" / self.dataset_folder.name

    @property
    def model(self) -> Path:
        """What nnU-Net writes of the fold."""
        model = f"{self.of_arm.trainer}__{self.plan.plans}__{self.plan.configuration}"
        return self.folder / "nnUNet_results" / self.dataset_folder.name / model / f"fold_{self.fold}"

    @property
    def checkpoint(self) -> Path:
        return self.model / CHECKPOINT

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions" if self.plan.test else self.model / "validation"

    @property
    def truth(self) -> Path:
        return Path(self.plan.test.labels) if self.plan.test else self.dataset_folder / "gt_segmentations"

    @property
    def evaluation(self) -> Path:
        """The figures; there once the run is finished."""
        return self.folder / "evaluation.json"

    def train(self, how: str = "") -> list[str]:
        """The command; `how`: --c to resume, --val for the validation alone."""
        plan = self.plan
        words = ["nnUNetv2_train", plan.dataset, plan.configuration, self.fold, "-tr", self.of_arm.trainer]
        words += ["-p", plan.plans, "-device", plan.device, *([how] if how else [])]
        return list(map(str, words))

    def predict(self) -> list[str] | None:
        """The command; None where the validation of the training is measured."""
        plan = self.plan
        if plan.test is None:
            return None
        words = ["nnUNetv2_predict", "-i", plan.test.images, "-o", self.predictions, "-d", plan.dataset]
        words += ["-c", plan.configuration, "-f", self.fold, "-tr", self.of_arm.trainer, "-p", plan.plans]
        words += ["-chk", CHECKPOINT, "-device", plan.device, "-step_size", plan.step_size]
        # On a CPU, processes beside the network only take its cores.
        words += ["-npp", 0, "-nps", 0] if plan.device == "cpu" else []
        return list(map(str, words))

    def evaluate(self) -> list[str]:
        """The command."""
        words = ["difftumor", "evaluate", self.truth, self.predictions, "-o", self.evaluation]
        words += _measures(self.plan.evaluate)
        if self.plan.test is None:
            words += ["--missing", "skip"]  # the truth holds the cases of all folds
        elif self.plan.test.table is not None:
            words += ["--case-table", self.plan.test.table]
        return list(map(str, words))

    def commands(self) -> Iterator[list[str]]:
        """All of them, in their order."""
        yield self.train()
        if (predict := self.predict()) is not None:
            yield predict
        yield self.evaluate()


def runs_of(plan: Plan, output: Path, dataset_folder: Path) -> list[Run]:
    """The runs of a plan: seed by seed, so that early results compare all arms."""
    return [
        Run(plan, arm, seed, fold, output / "runs" / f"{arm}_seed_{seed}_fold_{fold}", dataset_folder)
        for seed in plan.seeds
        for fold in plan.folds
        for arm in plan.arms
    ]


def find_run(runs: list[Run], wanted: str) -> Run:
    """A run by its name, or its number from 0.

    Raises:
        InputError: there is no such run.
    """
    if wanted.isdecimal():
        if int(wanted) >= len(runs):
            raise InputError(f"`run` is {wanted}, expected a number from 0 to {len(runs) - 1}, or a name")
        return runs[int(wanted)]
    found = {run.name: run for run in runs}
    if wanted not in found:
        near = nearest_name(wanted, found)
        hint = f"did you mean {near}?" if near else f"runs: {', '.join(found)}"
        raise InputError(f"`run` is {wanted}, which is none of this experiment; {hint}")
    return found[wanted]


def _measures(measures: Measures) -> list[object]:
    words: list[object] = ["--match", measures.match, "--min-iou", measures.min_iou]
    words += ["--nsd-tolerance-mm", measures.nsd_tolerance_mm]
    words += ["--tumor-label", *measures.tumor_label] if measures.tumor_label else []
    words += ["--organ-masks", measures.organ_masks] if measures.organ_masks else []
    return words + (["--organ-label", *measures.organ_label] if measures.organ_label else [])
