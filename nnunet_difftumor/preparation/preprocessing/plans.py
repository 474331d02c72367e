"""nnU-Net's own plans with the generator's HU window, and, if asked for, another spacing, patch size, or a recipe."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.prepared.config import PLANS_NAME, WINDOW_HU
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_plans_file
from nnunet_difftumor.prepared.recipes import RECIPES, REQUEST_KEY

CONFIGURATION = "3d_fullres"
_UNFINISHED = f".unfinished-{PLANS_NAME}"
# nnU-Net's planners do not let feature maps become smaller than this (UNet_featuremap_min_edge_length).
_SMALLEST_FEATURE_MAP = 4


def plan(dataset_id: int, plans_file: str, request: dict[str, Any]) -> None:
    """Lets nnU-Net plan, then edits the result: window, patch size.

    Args:
        dataset_id: with a fingerprint already extracted.
        plans_file: of the plans named `PLANS_NAME`, which appears whole.
        request: `planner` (class name), `spacing_mm` and `patch_size` (three numbers or None), `recipe` (a name in
            `RECIPES`, or None).

    Raises:
        InputError: if the images are two-dimensional.
    """
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments

    # Under another name, until they are whole.
    unfinished = Path(plans_file).with_name(f"{_UNFINISHED}.json")
    unfinished.unlink(missing_ok=True)
    if os.path.isfile(plans_file):
        shutil.copyfile(plans_file, unfinished)  # nnU-Net keeps what users have added to them
    with _at_least_one_thread():
        plan_experiments(
            [dataset_id],
            request["planner"],
            overwrite_target_spacing=request["spacing_mm"],
            overwrite_plans_name=_UNFINISHED,
        )
    plans = read_plans_file(str(unfinished))
    if CONFIGURATION not in plans["configurations"]:
        raise InputError(f"{plans_file}: has no configuration {CONFIGURATION}; are the images two-dimensional?")
    statistics = plans["foreground_intensity_properties_per_channel"]["0"]
    recipe = RECIPES.get(request["recipe"])
    low, high = WINDOW_HU if recipe is None else recipe.window_hu
    statistics["percentile_00_5"], statistics["percentile_99_5"] = low, high
    if recipe is not None:
        plans["configurations"][CONFIGURATION]["batch_size"] = recipe.batch_size
        if recipe.unit_interval:
            # nnU-Net subtracts the mean and divides by the standard deviation: the window becomes [0, 1].
            statistics["mean"], statistics["std"] = low, high - low
    if request["patch_size"] is not None:
        _set_patch_size(plans["configurations"][CONFIGURATION], request["patch_size"])
    for name, configuration in plans["configurations"].items():
        # ResEnc planners reuse the cases of nnUNetPlans; ours have another window and must not replace those.
        if "data_identifier" in configuration:
            configuration["data_identifier"] = f"{PLANS_NAME}_{name}"
    plans["plans_name"] = PLANS_NAME
    plans[REQUEST_KEY] = request
    write_json(plans_file, plans)
    unfinished.unlink()


def check_request(request: dict[str, Any]) -> None:
    """Refuses what `plan` could not do, whatever the dataset.

    Raises:
        InputError: if the planner does not exist, or the patch size is too small.
    """
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = Path(nnunetv2.__path__[0]) / "experiment_planning"
    planner = recursive_find_python_class(str(folder), request["planner"], "nnunetv2.experiment_planning")
    if planner is None:
        raise InputError(f"`planner` {request['planner']}: nnU-Net has no such planner")
    patch_size = request["patch_size"]
    if patch_size is not None and min(patch_size) < 2 * _SMALLEST_FEATURE_MAP:
        raise InputError(
            f"`patch_size` {list(patch_size)}: expected at least {2 * _SMALLEST_FEATURE_MAP} on every axis"
        )


def stored_request(plans_file: str) -> dict[str, Any] | None:
    """What the plans were made for; None if `prepare` did not make them."""
    return read_plans_file(plans_file).get(REQUEST_KEY)


def remove_half_written(path: Path) -> None:
    """A file of nnU-Net's, which it writes in place, and reads if it is there."""
    try:
        if path.is_file():
            load_json(path)
    except ValueError:
        path.unlink()


@contextmanager
def _at_least_one_thread() -> Iterator[None]:
    """nnU-Net's planners compute in as many threads as loaders are to be used, which may be none."""
    before = os.environ.get("nnUNet_n_proc_DA")
    if before is not None and before.strip() == "0":
        os.environ["nnUNet_n_proc_DA"] = "1"
    try:
        yield
    finally:
        if before is not None:
            os.environ["nnUNet_n_proc_DA"] = before


def _set_patch_size(configuration: dict[str, Any], patch_size: Sequence[int]) -> None:
    """Fits the network to the patch size by nnU-Net's own rule."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, fitted, _ = get_pool_and_conv_props(
        configuration["spacing"], patch_size, _SMALLEST_FEATURE_MAP, 999_999
    )
    network = configuration["architecture"]["arch_kwargs"]
    stages, planned = len(strides), network["n_stages"]
    features = network["features_per_stage"]
    widest = 512 if len(patch_size) == 2 else 320
    network["n_stages"] = stages
    network["strides"], network["kernel_sizes"] = [list(s) for s in strides], [list(k) for k in kernels]
    network["features_per_stage"] = [
        features[i] if i < planned else min(features[-1] * 2 ** (i + 1 - planned), max(widest, features[-1]))
        for i in range(stages)
    ]
    for key, length in (
        ("n_conv_per_stage", stages),
        ("n_blocks_per_stage", stages),
        ("n_conv_per_stage_decoder", stages - 1),
    ):
        if key in network:
            network[key] = [network[key][min(i, len(network[key]) - 1)] for i in range(length)]
    configuration["patch_size"] = [int(value) for value in fitted]
