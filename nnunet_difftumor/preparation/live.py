"""Whether a dataset's tumors can be drawn live: which diffusion models there are, and a GPU to run them."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.nnunet_folders import RESULTS, WEIGHTS_FOLDER, nnunet_folder
from nnunet_difftumor.pipeline.live.synthesis import LiveSynthesis
from nnunet_difftumor.prepared.config import DiffTumorConfig


def with_what_is_available(config: DiffTumorConfig, *, dataset: str) -> tuple[DiffTumorConfig, str]:
    """New settings with live tumors where there are diffusion models and a GPU, and hand-crafted ones elsewhere.

    Args:
        config: the settings otherwise.
        dataset: name of the dataset, whose own models come first.

    Returns:
        The settings, and a sentence that says what was chosen, and why.
    """
    reasons = []
    for folder in _folders(dataset):
        chosen = replace(config, source="live", live=replace(config.live, weights_folder=str(folder)))
        try:
            found = LiveSynthesis(chosen)
        except InputError as error:
            reasons.append(str(error))
            continue
        if torch.cuda.is_available():
            return chosen, f"drawn live by the diffusion models of {folder}"
        models = ", ".join(file["file"] for file in found.weights)
        return config, (
            f"hand-crafted: there are diffusion models ({models}), but no GPU here to draw while training. Where "
            f'trainings have one, set "source" to "live" and "weights_folder" in "live" to "{folder}" in '
            "difftumor.json; without one, `difftumor synthesize --bank` draws tumors beforehand"
        )
    if not reasons:
        return config, "hand-crafted"
    return config, f"hand-crafted: no diffusion models for all organs and sizes ({reasons[0]})"


def _folders(dataset: str) -> Iterator[Path]:
    if not os.environ.get(RESULTS):  # it is needed for trainings, not for `prepare`
        return
    results = nnunet_folder(RESULTS)
    for folder in (results / dataset / "generative", results / WEIGHTS_FOLDER):
        if folder.is_dir():
            yield folder.absolute()
