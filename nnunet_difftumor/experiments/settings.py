"""What the arms train with: the dataset's difftumor.json, changed as each arm says, and the cases of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.experiments.planning.plan import Arm, Plan
from nnunet_difftumor.nnunet_folders import RESULTS, WEIGHTS_FOLDER, nnunet_folder
from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig


def config_of(plan: Plan, arm: str, seed: int, *, dataset_folder: Path) -> DiffTumorConfig:
    """The settings of a run.

    Args:
        plan, arm, seed: which run.
        dataset_folder: of the prepared dataset.

    Raises:
        InputError: naming the arm and the key.
    """
    base = DiffTumorConfig.load(dataset_folder / FILE_NAME).to_dict()
    where = f"plan {plan.name}: arms.{arm}.settings"
    settings: Mapping[str, Any] = plan.arms[arm].settings
    record = {**base, **settings, "seed": seed}
    if isinstance(settings.get("live"), dict):
        record["live"] = {**base["live"], **settings["live"]}
    config = DiffTumorConfig.from_dict(record, where=where)
    if config.needs_server and config.live.weights_folder is None:
        # Every run has an nnUNet_results of its own, where no weights are.
        folder = nnunet_folder(RESULTS, instead=f"set live.weights_folder in {where}") / WEIGHTS_FOLDER
        live = dataclasses.replace(config.live, weights_folder=str(folder.absolute()))
        config = dataclasses.replace(config, live=live)
    return config


def check_weights(plan: Plan, configs: Mapping[str, DiffTumorConfig]) -> None:
    """Refuses arms whose diffusion models are not there, before anything is trained.

    Raises:
        InputError: naming the arm.
    """
    for arm, config in configs.items():
        if config.needs_server:
            organs = [organ.name for organ in config.organs]
            try:
                config.live.choose_renderer(organs=organs, sizes=sorted(config.sizes()))
            except InputError as error:
                raise InputError(f"plan {plan.name}: arms.{arm}: {error}") from error


def splits_of(splits: Sequence[Mapping[str, Any]], arm: Arm, *, fold: int | str, seed: int, where: str) -> list[dict]:
    """The folds of a run: those of the dataset, where the arm trains on a part of the real cases with these alone.

    A smaller number of cases is a part of a larger one of the same seed.

    Args:
        splits: of the dataset.
        arm, fold, seed: which run.
        where: the arm, for messages.

    Raises:
        InputError: the fold, or a case, is not there, or there are too few.
    """
    found = [dict(split) for split in splits]
    if fold == "all":
        return found
    if int(fold) >= len(found):
        raise InputError(f"{where}: fold {fold} was asked for, but the dataset has folds 0 to {len(found) - 1}")
    if arm.cases is None:
        return found
    train = sorted(found[int(fold)]["train"])
    if isinstance(arm.cases, int):
        if arm.cases > len(train):
            raise InputError(f"{where}: cases is {arm.cases}, but fold {fold} has {len(train)} real training cases")
        order = np.random.default_rng((seed, int(fold))).permutation(len(train))
        chosen = sorted(train[index] for index in order[: arm.cases])
    else:
        if unknown := sorted(set(arm.cases) - set(train)):
            raise InputError(f"{where}: cases has {some(unknown)}, which fold {fold} does not train on")
        chosen = sorted(arm.cases)
    found[int(fold)]["train"] = chosen
    return found
