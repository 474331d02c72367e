"""An experiment from its plan to its result: what the command and Python call."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.ct.images import stem_of
from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.evaluation.label_maps import label_maps
from nnunet_difftumor.experiments.collecting.collect import collect
from nnunet_difftumor.experiments.commands_text import commands_text
from nnunet_difftumor.experiments.estimate import estimate
from nnunet_difftumor.experiments.masks import check_masks
from nnunet_difftumor.experiments.planning.plan import HeldOut, Plan
from nnunet_difftumor.experiments.planning.reading import read_plan
from nnunet_difftumor.experiments.run_folder import SPLITS, own_files
from nnunet_difftumor.experiments.runs import Run, find_run, runs_of
from nnunet_difftumor.experiments.schedule import work_on_all
from nnunet_difftumor.experiments.settings import check_weights, config_of
from nnunet_difftumor.experiments.slurm import write_script
from nnunet_difftumor.experiments.started import begin
from nnunet_difftumor.experiments.working import work
from nnunet_difftumor.prepared.dataset import prepared_folder
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_splits


def experiment(
    plan: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    dataset_id: int | None = None,
    images: str | os.PathLike | None = None,
    true_labels: str | os.PathLike | None = None,
    device: str | None = None,
    jobs: int = 1,
    run: str | None = None,
    slurm: bool = False,
    dry_run: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Trains every arm of a plan with every seed, predicts, evaluates, and collects; what is done is kept.

    Args:
        plan: a YAML file, or the name of a ready plan (docs/experiments.md).
        output: folder for everything; None: `experiment_NAME` in the current one.
        dataset_id, images, true_labels, device: instead of the plan's.
        jobs: runs at the same time.
        run: does this run alone, by name or number, as a job of a cluster does.
        slurm: writes a script for Slurm, and runs nothing.
        dry_run: checks, says what would be done and how long it may take, and writes nothing.
        report: gets lines.

    Returns:
        The result, also in `result.json`; None where nothing is collected.

    Raises:
        InputError: something of the plan, the dataset or the folder is wrong.
        CommandFailedError: a command failed.
    """
    if jobs < 1:
        raise InputError(f"`jobs` is {jobs}, expected at least 1")
    chosen = read_plan(plan, dataset_id=dataset_id, images=images, labels=true_labels, device=device)
    folder = Path(output) if output is not None else Path(f"experiment_{chosen.name}")
    runs = runs_of(chosen, folder.absolute(), prepared_folder(chosen.dataset))
    notes = _check(chosen, runs)
    wanted = None if run is None else find_run(runs, run)
    if dry_run:
        report(commands_text(runs))
        report(estimate(runs, jobs=jobs))
        return None
    begin(folder, chosen, runs[0].dataset_folder)
    if slurm:
        _script(folder, runs, report)
        return None
    if wanted is not None:
        work(wanted, report=report)
        return None
    report(estimate(runs, jobs=jobs))
    work_on_all(runs, folder.absolute(), jobs=jobs, report=report)
    return collect(runs, folder, masks=check_masks(runs), notes=notes)


def _script(folder: Path, runs: Sequence[Run], report: Callable[[str], None]) -> None:
    if all(run.evaluation.is_file() for run in runs):
        report("every run is finished; the same command without `slurm` collects")
        return
    path = write_script(folder, runs)
    report(f"written: {path}; submit it with sbatch, and collect with the same command without `slurm`")
    report(estimate(runs, jobs=len(runs)))


def _check(plan: Plan, runs: Sequence[Run]) -> list[str]:
    """What can be checked before anything runs; returns notes."""
    for one in runs:
        own_files(one)
    dataset_folder = runs[0].dataset_folder
    check_weights(plan, {arm: config_of(plan, arm, plan.seeds[0], dataset_folder=dataset_folder) for arm in plan.arms})
    return [] if plan.test is None else _check_test(plan.test, dataset_folder)


def _check_test(test: HeldOut, dataset_folder: Path) -> list[str]:
    """The test cases are there, each with its scan."""
    truths = set(label_maps(test.labels))
    scans = {stem_of(path).removesuffix("_0000") for path in label_maps(test.images).values()}
    if missing := sorted(truths ^ scans):
        where = test.images if missing[0] in truths else test.labels
        raise InputError(
            f"{where}: nothing of {some(missing)}; every test case needs CASE_0000.nii.gz in the images and "
            "CASE.nii.gz in the labels"
        )
    trained = {
        case for split in read_splits(dataset_folder / SPLITS) for role in ("train", "val") for case in split[role]
    }
    if same := sorted(truths & trained):
        return [f"test cases have the names of training cases: {some(same)}; make sure that they are others"]
    return []
