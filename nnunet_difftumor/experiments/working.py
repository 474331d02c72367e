"""Does one run: trains, predicts, evaluates; what is done is kept."""

import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_difftumor import __version__
from nnunet_difftumor.demonstration.commands import Commands
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.experiments.run_folder import make_run_folder, note, noted, variables_of
from nnunet_difftumor.experiments.runs import Run
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.runs.run_record import run_path
from nnunet_difftumor.runs.synthesis_log import read_summaries

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one run
    fcntl = None  # type: ignore[assignment]

_TRAIN_LINES = r"^\S+ \S+ (Epoch \d+|Epoch time: .*)"
_NO_LINES = r"(?!)"
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")


def work(run: Run, *, report: Callable[[str], None] = print) -> None:
    """Does what is not done of a run.

    Args:
        run: the run.
        report: gets a line for what is kept or damaged.

    Raises:
        InputError: its checkpoint is gone, or its trainer has a length of its own.
        CommandFailedError: a command of it failed.
    """
    if run.evaluation.is_file():
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    with _only_worker(run, report) as descriptors:
        if run.evaluation.is_file():  # made while this one waited
            return
        make_run_folder(run)
        commands = Commands(variables_of(run), run.folder / "logs", keep_open=descriptors)
        _train(run, commands, report)
        if (predict := run.predict()) is not None:
            # What a killed prediction has left may be half written.
            shutil.rmtree(run.predictions, ignore_errors=True)
            seconds = _timed(commands, predict, _NO_LINES)
            note(run, predicted={"seconds": seconds})
        _timed(commands, run.evaluate(), _NO_LINES)


def _train(run: Run, commands: Commands, report: Callable[[str], None]) -> None:
    validated = run.plan.test is not None or (run.model / "validation" / "summary.json").is_file()
    trained = noted(run).get("trained")
    for checkpoint in _damaged(run):
        report(f"{run.name}: {checkpoint} was not written to its end, and is removed")
        checkpoint.unlink()
    there = run.checkpoint.is_file()
    if trained and not there:
        raise InputError(
            f"{run.checkpoint}: is gone, but the training of {run.name} was finished; put it back, or delete "
            f"{run.folder} to train it again"
        )
    if trained and validated:
        return
    resumed = [name for name in _CHECKPOINTS if (run.model / name).is_file()]
    if there:
        if not validated:
            _timed(commands, run.train("--val"), _NO_LINES)
        seconds = None
    else:
        seconds = _timed(commands, run.train("--c" if resumed else ""), _TRAIN_LINES)
    if not run.checkpoint.is_file():
        raise InputError(f"{run.checkpoint}: nnU-Net did not write it; its output is in {run.folder / 'logs'}")
    steps = _steps(run)
    if steps != run.plan.iterations:
        raise InputError(
            f"plan {run.plan.name}: arms.{run.arm}.trainer {run.of_arm.trainer} trained {steps} iterations, and the "
            f"plan says {run.plan.iterations}; take a trainer that has no length of its own"
        )
    # Time that a killed attempt took is not known.
    known = None if resumed else seconds
    note(
        run,
        version=__version__,
        first_weights_sha256=_record(run)["first_weights_sha256"],
        trained=trained or {"seconds": known, "iterations": steps},
    )


def _timed(commands: Commands, words: list[str], show: str) -> float:
    started = time.monotonic()
    commands.run(*words, show=show)
    return round(time.monotonic() - started, 2)


def _damaged(run: Run) -> list[Path]:
    """Checkpoints whose writing was cut off: PyTorch's are zip archives, whose directory is written last."""
    found = [run.model / name for name in _CHECKPOINTS]
    return [path for path in found if path.is_file() and not zipfile.is_zipfile(path)]


def _steps(run: Run) -> int:
    """Batches that the training's log has."""
    samples = sum(summary["samples"] for summary in read_summaries(run.model).get(0, []))
    return samples // _record(run)["batch_size"]


def _record(run: Run) -> dict[str, Any]:
    """What the trainer noted of the training."""
    return load_json(run_path(run.model, 0))


@contextmanager
def _only_worker(run: Run, report: Callable[[str], None]) -> Iterator[tuple[int, ...]]:
    """One process works at a run: the commands of a driver that was killed may still be at it.

    Yields:
        Descriptors that commands keep open, with which they hold the lock as long as they live.
    """
    if fcntl is None:
        yield ()
        return
    file = os.open(run.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{run.name}: another process is at it; waiting for its end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield (file,)
    finally:
        os.close(file)
