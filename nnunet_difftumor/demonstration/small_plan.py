"""Plans that a CPU can train in minutes: a coarse grid and a small network instead of nnU-Net's own choice."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from nnunet_difftumor.files import write_json

SMALL_PLANS_NAME = "nnUNetPlansDiffTumorDemo"
FINEST_MM = 3.0
PATCH_SIZE = (24, 40, 40)
FEATURES = (8, 16, 32, 64)


def coarse_spacing_mm(cases: Mapping[str, Mapping[str, Any]]) -> tuple[float, float, float]:
    """The target spacing: 3 mm, and coarser along an axis along which most of the scans are.

    Args:
        cases: facts by case name, with "spacing_mm" (z, y, x), as in conversion_report.json.
    """
    spacings: Sequence[Sequence[float]] = [facts["spacing_mm"] for facts in cases.values()]
    z, y, x = (round(max(FINEST_MM, median(values)), 2) for values in zip(*spacings, strict=True))
    return z, y, x


def write_small_plans(
    dataset_folder: Path,
    *,
    epochs: int,
    iterations_per_epoch: int,
    patch_size: Sequence[int] = PATCH_SIZE,
    features: Sequence[int] = FEATURES,
) -> Path:
    """Writes plans beside those of `difftumor prepare`, for the same preprocessed cases.

    They differ in the network, the patch size, the Dice loss, which is taken over the batch, and in what the trainer of
    the demo reads: the length of the training.

    Args:
        dataset_folder: `nnUNet_preprocessed/DatasetXXX_NAME`.
        epochs, iterations_per_epoch: length of the training.
        patch_size: voxels (z, y, x), each a multiple of 2 to the power of the number of stages less one.
        features: channels of each stage.

    Returns:
        The plans file.
    """
    from nnunet_difftumor.preparation.preprocessing.plans import CONFIGURATION
    from nnunet_difftumor.prepared.config import PLANS_NAME
    from nnunet_difftumor.prepared.nnunet.training_length import TrainingLength
    from nnunet_difftumor.trainers.tiny import shrink_plans

    plans = json.loads((dataset_folder / f"{PLANS_NAME}.json").read_text())
    shrink_plans(plans, CONFIGURATION, patch_size=patch_size, features=features)
    # In a patch without a tumor its Dice is nearly 0 whatever is predicted, and teaches nothing until not even a trace
    # of a tumor is predicted any more, which it then rewards. Over a batch there nearly always is a tumor.
    plans["configurations"][CONFIGURATION]["batch_dice"] = True
    plans["plans_name"] = SMALL_PLANS_NAME
    plans |= TrainingLength(epochs, iterations_per_epoch).to_plans()
    path = dataset_folder / f"{SMALL_PLANS_NAME}.json"
    write_json(path, plans)
    return path
