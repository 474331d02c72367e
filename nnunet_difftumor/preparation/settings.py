"""The settings of a dataset: new ones, or those of an earlier `prepare`, which the user may have edited."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.organs import check_declared, find_organs
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ


def kept_settings(
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


def new_settings(
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
