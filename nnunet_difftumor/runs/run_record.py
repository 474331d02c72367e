"""What a replay needs to know of a run and cannot find elsewhere: `synthesis_log/run_rank_X.json`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnunet_difftumor import __version__
from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.runs.synthesis_log import LOG_FOLDER


def run_path(output_folder: str | Path, rank: int) -> Path:
    """The file of one process of a run."""
    return Path(output_folder) / LOG_FOLDER / f"run_rank_{rank}.json"


def write_run(output_folder: str | Path, *, rank: int, trainer: Any) -> None:
    """Writes the file.

    Args:
        output_folder: of the run's fold.
        rank: of the process.
        trainer: with `SyntheticTumors` mixed in.
    """
    live, path = trainer.synthesis.live, run_path(output_folder, rank)
    if trainer.current_epoch == 0:
        first_weights = weights_sha256(trainer.network.state_dict())
    else:  # resumed: the network has learned since
        first_weights = load_json(path).get("first_weights_sha256") if path.is_file() else None
    write_json(
        path,
        {
            "version": __version__,
            "trainer": type(trainer).__name__,
            "configuration": trainer.configuration_name,
            "fold": trainer.fold,
            "batch_size": trainer.batch_size,
            "oversample_foreground_percent": trainer.oversample_foreground_percent,
            "weights": live.weights if live is not None else [],
            "weights_organs": live.choice.weights_organs() if live is not None else {},
            "first_weights_sha256": first_weights,
        },
    )


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """Of names and values, in the order of the names; the wrapping of a compiled or distributed network is no part."""
    digest = hashlib.sha256()
    plain = {name.replace("_orig_mod.", "").removeprefix("module."): value for name, value in weights.items()}
    for name in sorted(plain):
        digest.update(name.encode())
        digest.update(plain[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
