"""The one way in which tests make a trainer: nnU-Net's class on a prepared dataset, on the CPU."""

from collections.abc import Callable
from pathlib import Path

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorTiny

CONFIGURATION = "3d_fullres"


def trainer_of(
    folder: Path,
    trainer_class: type = nnUNetTrainerDiffTumorTiny,
    *,
    fold: int | str = 0,
    plans_file: Path | None = None,
    edit_plans: Callable[[dict], None] = lambda plans: None,
    settings: Path | None = None,
    initialize: bool = True,
):
    """A trainer.

    Args:
        folder: of the preprocessed dataset.
        trainer_class: of nnU-Net or ours.
        fold: number or "all".
        plans_file: other plans than those that `prepare` wrote.
        edit_plans: changes them.
        settings: another difftumor.json than the dataset's.
        initialize: whether it gets its network at once.
    """
    plans = load_json(str(plans_file or folder / "nnUNetPlansDiffTumor.json"))
    edit_plans(plans)
    dataset_json = load_json(str(folder / "dataset.json"))
    trainer = trainer_class(
        {**plans, "continue_training": False}, CONFIGURATION, fold, dataset_json, torch.device("cpu")
    )
    if settings is not None:
        trainer.synthesis = TrainingSynthesis(
            folder,
            trainer.plans_manager.plans,
            dataset_json=dataset_json,
            configuration=CONFIGURATION,
            fold=fold,
            config=DiffTumorConfig.load(settings),
        )
    if initialize:
        trainer.initialize()
    return trainer
