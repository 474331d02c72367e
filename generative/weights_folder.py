"""Names of the files in a folder of weights, and where that folder is by default. Imports no torch."""

from pathlib import Path

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.generative.stages import STAGES
from nnunet_difftumor.names import check_plain_name
from nnunet_difftumor.nnunet_folders import RESULTS, WEIGHTS_FOLDER, nnunet_folder

AUTOENCODER_FILE = "autoencoder.safetensors"


def diffusion_file(organ: str, stage: str) -> str:
    """Name of a diffusion model's weights.

    Raises:
        InputError: for an organ that is no plain name, or another stage than early and late.
    """
    return f"{check_plain_name(organ, where='organ')}_{check_stage(stage, where='stage')}.safetensors"


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
