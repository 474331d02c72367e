"""Names of the files in a folder of weights, and where that folder is by default. Imports no torch."""

import re
from pathlib import Path

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.generative.stages import PUBLISHED_ORGANS, STAGES
from nnunet_difftumor.names import check_plain_name, is_plain_name
from nnunet_difftumor.nnunet_folders import RESULTS, WEIGHTS_FOLDER, nnunet_folder

AUTOENCODER_FILE = "autoencoder.safetensors"


def diffusion_file(organ: str, stage: str) -> str:
    """Name of a diffusion model's weights.

    Raises:
        InputError: for an organ that is no plain name, or another stage than early and late.
    """
    return f"{check_plain_name(organ, where='organ')}_{check_stage(stage, where='stage')}.safetensors"


def organs_with_weights(folder: Path) -> tuple[str, ...]:
    """Names of the organs that a folder has diffusion models of, sorted; none for a folder that is not there."""
    names = {
        path.name.removesuffix(f"_{stage}.safetensors")
        for stage in STAGES
        for path in folder.glob(f"*_{stage}.safetensors")
    }
    return tuple(sorted(name for name in names if is_plain_name(name)))


def own_weights(organ: str, there: tuple[str, ...]) -> str | None:
    """Whose models an organ has of its own; None if none, or if its name fits several.

    A file for exactly that name; or else for a name that is part of it as a whole word (`colon` of `colon_left`), or
    that of a published model anywhere in it (`kidney` of `left_kidney`), whether its file is there or not.

    Args:
        organ: its name.
        there: as from `organs_with_weights`.
    """
    lowered = organ.lower()
    if exact := [name for name in there if name.lower() == lowered]:
        return exact[0]
    named = {name for name in PUBLISHED_ORGANS if name in lowered} | {n for n in there if _is_word_of(n, lowered)}
    # Of adrenal_gland and gland, the longer one says more.
    widest = [name for name in named if not any(name != other and _is_word_of(name, other.lower()) for other in named)]
    return widest[0] if len(widest) == 1 else None


def _is_word_of(name: str, lowered: str) -> bool:
    return re.search(rf"(?<![^\W_]){re.escape(name.lower())}(?![^\W_])", lowered) is not None


def check_stage(stage: object, *, where: str) -> str:
    """Refuses what is no stage; `where` names file and key, for the message.

    Raises:
        InputError: for anything but early and late.
    """
    if stage not in STAGES:
        raise InputError(f"{where} is {shown(stage)}, expected one of {', '.join(STAGES)}")
    return stage


def default_weights_folder(*, option: str = "`weights`") -> Path:
    """`difftumor_weights` in the folder that nnUNet_results names.

    Args:
        option: what else names a folder, for the message.

    Raises:
        InputError: if nnUNet_results is not set.
    """
    return nnunet_folder(RESULTS, instead=f"name a folder of weights with {option}") / WEIGHTS_FOLDER
