"""Who draws the tumors of a training, in words for its log."""

from pathlib import Path

from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.pipeline.live.synthesis import LiveSynthesis
from nnunet_difftumor.prepared.bank_folder import BANK_FILE, recorded_weights_organs
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.synthesis.look.organ_names import notes_on_organ as describe_organ
from nnunet_difftumor.synthesis.networks.weights import describe_files
from nnunet_difftumor.synthesis.renderers import notes_on_weights

_BY_HAND = "hand-crafted, rendered while training"


def describe_source(config: DiffTumorConfig, live: LiveSynthesis | None) -> str:
    """Renderers, their weights and shares.

    Args:
        config: of the training.
        live: of its live tumors; None if it has none.
    """
    if config.source == "handcrafted":
        return _BY_HAND
    if config.source == "bank":
        other = _describe_bank(config.bank_folder)
    else:
        other = "live tumors" if live is None else _describe_live(live)
    if config.handcrafted_share == 0:
        return other
    return f"{config.handcrafted_share:.0%} {_BY_HAND}; {1 - config.handcrafted_share:.0%} {other}"


def notes_on_organs(config: DiffTumorConfig, live: LiveSynthesis | None) -> list[str]:
    """A line for each organ without shapes of its own, and for each that models of another name draw in.

    Args:
        config, live: as for `describe_source`.
    """
    notes = []
    if config.source != "bank":  # whose tumors have their shapes
        notes = [note for organ in config.organs for note in describe_organ(organ, config.preset)]
    if config.source == "bank":
        notes += notes_on_weights(_weights_organs_of_bank(config.bank_folder))
    return notes if live is None else notes + live.choice.notes()


def _weights_organs_of_bank(folder: str | Path) -> dict[str, str]:
    try:
        return recorded_weights_organs(load_json(Path(folder) / BANK_FILE))
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # `_describe_bank` says so


def _describe_live(live: LiveSynthesis) -> str:
    exactly = ", deterministic" if live.settings.deterministic else ""
    if live.choice.sampler_steps is not None:
        exactly += f", late ones in {live.choice.sampler_steps} steps"
    weights = f"{describe_files(live.weights)} of {live.settings.folder.absolute()}"
    return f"live, drawn by diffusion models while training{exactly}; weights {weights}"


def _describe_bank(folder: str | Path) -> str:
    try:
        record = load_json(Path(folder) / BANK_FILE)
        files = {file["file"]: file for found in record["weights"].values() for file in found}
        weights = f", weights {describe_files(files.values())}" if files else ""
        return f"lesion files of {folder}, renderer {record['renderer']}{weights}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # One that a training fills, or another program has made.
        return f"lesion files of {folder}, which do not say how they were made"
