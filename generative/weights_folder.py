"""Names of the files in a folder of weights, and where that folder is by default. Imports no torch."""

import os
from pathlib import Path

from nnunet_difftumor.errors import InputError

AUTOENCODER_FILE = "autoencoder.safetensors"


def diffusion_file(organ: str, stage: str) -> str:
    """Name of a diffusion model's weights."""
    return f"{organ}_{stage}.safetensors"


def default_weights_folder(*, option: str) -> Path:
    """`difftumor_weights` in the folder that nnUNet_results names.

    Args:
        option: of the command line that names another folder, for the message.

    Raises:
        InputError: if nnUNet_results is not set.
    """
    results = os.environ.get("nnUNet_results")
    if not results:
        raise InputError(f"{option}: nnUNet_results is not set; set it, or name a folder of weights with {option}")
    return Path(results) / "difftumor_weights"
