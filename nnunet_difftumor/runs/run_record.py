"""What a replay needs to know of a run and cannot find elsewhere: `synthesis_log/run_rank_X.json`."""

from pathlib import Path
from typing import Any

from nnunet_difftumor import __version__
from nnunet_difftumor.files import write_json
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
    live = trainer.synthesis.live
    write_json(
        run_path(output_folder, rank),
        {
            "version": __version__,
            "trainer": type(trainer).__name__,
            "configuration": trainer.configuration_name,
            "fold": trainer.fold,
            "batch_size": trainer.batch_size,
            "oversample_foreground_percent": trainer.oversample_foreground_percent,
            "weights": live.weights if live is not None else [],
            "weights_organs": live.choice.weights_organs() if live is not None else {},
        },
    )
