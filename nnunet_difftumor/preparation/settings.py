"""The settings of a dataset: new ones, or those of an earlier `prepare`, which the user may have edited."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.live import with_what_is_available
from nnunet_difftumor.preparation.organs import check_declared, find_organs, parse_organ
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.recipes import RECIPES
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ


def decided_by_recipe(
    recipe: str, spacing_mm: Sequence[float] | None, patch_size: Sequence[int] | None, preset: str | None
) -> tuple[Sequence[float], Sequence[int], str]:
    """Voxel size, patch and preset of a recipe.

    Raises:
        InputError: there is no such recipe, or one of the three is asked for beside it.
    """
    if recipe not in RECIPES:
        raise InputError(f"`recipe` is {recipe!r}, expected one of {', '.join(RECIPES)}")
    given = [
        name for name, value in (("spacing_mm", spacing_mm), ("patch_size", patch_size), ("preset", preset)) if value
    ]
    if given:
        named = ", ".join(f"`{name}`" for name in given)
        raise InputError(f"{named}: the recipe {recipe} decides it; leave one of the two out")
    found = RECIPES[recipe]
    return found.spacing_mm, found.patch_size, found.preset


def settings_of(
    path: Path,
    dataset_json: dict[str, Any],
    *,
    organ: Sequence[Organ | str] | None,
    preset: str | None,
    recipe: str | None,
    overwrite: bool,
) -> tuple[DiffTumorConfig, str]:
    """The settings that are there, or new ones; and a line that says which.

    Args:
        path: of difftumor.json.
        dataset_json: nnU-Net's.
        organ, preset, recipe, overwrite: as `prepare` takes them.

    Raises:
        InputError: as `_kept_settings` and `_new_settings`.
    """
    organs = [parse_organ(pair) if isinstance(pair, str) else pair for pair in organ or ()] or None
    if path.is_file() and not overwrite:
        return _kept_settings(path, dataset_json, organs=organs, preset=preset), f"kept {path}"
    config = _new_settings(dataset_json, organs=organs, preset=preset)
    if recipe is not None and (shares := RECIPES[recipe].shares) is not None:
        config = replace(config, shares=shares)
    config, tumors = with_what_is_available(config, dataset=path.parent.name)
    return config, "; ".join([*map(_describe, config.organs), f"tumors {tumors}"])


def _kept_settings(
    path: Path, dataset_json: Mapping[str, Any], *, organs: Sequence[Organ] | None, preset: str | None
) -> DiffTumorConfig:
    """Reads difftumor.json.

    Args:
        path: of the file.
        dataset_json: nnU-Net's, which must declare every label.
        organs, preset: what is asked for; None: whatever the file says.

    Raises:
        InputError: if the file is wrong, or says something else than what is asked for.
    """
    config = DiffTumorConfig.load(path)
    check_declared([*(organs or ()), *config.organs], dataset_json)
    differing = {}
    if preset and preset != config.preset:
        differing["`preset`"] = ("preset", "shares")
    if organs and {*organs} != {*config.organs}:
        differing["`organ`"] = ("organs",)
    if differing:
        there, asked = (
            json.dumps({key: settings.to_dict()[key] for keys in differing.values() for key in keys})
            for settings in (config, _settings(organs or config.organs, preset))
        )
        raise InputError(
            f"{path}: has {there}, which a second `prepare` keeps, but {asked} is asked for; edit the file and leave "
            f"out {' and '.join(differing)}, or start again with `overwrite`"
        )
    return config


def _new_settings(
    dataset_json: Mapping[str, Any], *, organs: Sequence[Organ] | None, preset: str | None
) -> DiffTumorConfig:
    """The default settings with what is asked for; organs that are not are found in dataset.json.

    Raises:
        InputError: if no organ is found, or a label is not declared.
    """
    config = _settings(organs or find_organs(dataset_json), preset)
    check_declared(config.organs, dataset_json)
    return config


def _settings(organs: Sequence[Organ], preset: str | None) -> DiffTumorConfig:
    config = DiffTumorConfig(organs=tuple(organs))
    return replace(config, preset=preset, shares=PRESETS[preset].shares) if preset else config


def _describe(organ: Organ) -> str:
    avoid = f", avoiding {list(organ.avoid_labels)}" if organ.avoid_labels else ""
    return f"{organ.name} {list(organ.organ_labels)} with tumor {organ.tumor_label}{avoid}"
