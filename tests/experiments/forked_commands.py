"""Experiments that are forked from this process, as their commands are: nnU-Net is imported once.

Each line that comes in is a JSON list: a file for what is printed, and the words behind `difftumor experiment`. Each is
answered by two lines: the id of its process, which leads a group of its own, and how it ended.

In trainings of seconds imports take longest. The commands do what they do for users, but for nnU-Net's validation,
whose processes import nnU-Net again, and which is not looked at where there are test cases, and for plots.
"""

import json
import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

import torch
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import nnunet_difftumor.pictures.replay
import nnunet_difftumor.trainers.demo  # noqa: F401
from nnunet_difftumor.cli.main import main
from nnunet_difftumor.demonstration.commands import CommandFailedError, Commands
from nnunet_difftumor.installation import trainer_folders
from nnunet_difftumor.trainers import synthetic_tumors

ENTRIES = {"nnUNetv2_train": run_training_entry, "nnUNetv2_predict": predict_entry_point}


def run_forked(self: Commands, *command: object, show: str | None = None) -> None:
    words = [str(word) for word in command]
    self._log_folder.mkdir(parents=True, exist_ok=True)
    log = self._log_folder / f"{len(list(self._log_folder.iterdir())):02d}.log"
    child = os.fork()
    if child == 0:
        with open(log, "w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
            os._exit(_run(words, self.variables))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise CommandFailedError(f"{words}: {log.read_text()}", status)


def _run(words: list[str], variables: dict[str, str]) -> int:
    os.environ.update(variables)
    try:
        if words[0] == "difftumor":
            return main(words[1:])
        sys.argv = words
        ENTRIES[words[0]]()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _answer(printed: str, words: list[str]) -> None:
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(printed, "w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
            status = main(["experiment", *words])
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    os.environ["nnUNet_extTrainer"] = trainer_folders()
    os.environ["nnUNet_n_proc_DA"] = "0"
    torch.set_num_threads(1)
    Commands.run = run_forked
    nnUNetTrainer.perform_actual_validation = lambda self, save_probabilities=False: None
    nnUNetTrainer.plot_network_architecture = lambda self: None
    MetaLogger.plot_progress_png = lambda self, output_folder: None
    synthetic_tumors.draw_progress = lambda output_folder: None
    for line in sys.stdin:
        _answer(*json.loads(line))
