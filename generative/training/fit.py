"""Runs a training with Lightning: on one device, or on several processes that torchrun starts."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.training.checkpoint_keeper import AtomicCheckpoints, Keeper
from nnunet_difftumor.generative.training.crops import BatchNumbers
from nnunet_difftumor.generative.training.run_folder import RunFolder
from nnunet_difftumor.generative.training.settings import TrainingSettings
from nnunet_difftumor.generative.training.task import TrainingTask

DEVICES = ("auto", "cpu", "cuda")


def fit(
    task: TrainingTask,
    *,
    run: RunFolder,
    crops: torch.utils.data.Dataset,
    validation: torch.utils.data.Dataset,
    about: dict[str, Any],
    parts: int = 1,
    device: str = "auto",
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> bool:
    """Trains until the settings' steps are done or a signal stops it; resumes where an earlier call was stopped.

    Args:
        task: with its settings.
        run: where everything goes.
        crops: endless, by number.
        validation: as many as the settings say.
        about: what is trained on; goes into the weights' JSON.
        parts: batches that make one step.
        device: one of DEVICES.
        overwrite: start again.
        report: gets a line about the run, in the first process.

    Returns:
        Whether all steps are done.

    Raises:
        InputError: if the run cannot be resumed with these settings, or the GPU's memory is not enough.
        DivergedError: if the loss is not finite; the last checkpoint is from before.
    """
    # torchrun sets these.
    rank, world_size = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    settings, report = task.settings, report if rank == 0 else _silent
    with run.alone() if rank == 0 else nullcontext():
        step = run.begin(settings, about, world_size=world_size, overwrite=overwrite)
        if step >= settings.steps:
            report(f"{run.folder}: all {step} steps are done; more with `steps`")
            return True
        report(f"{run.folder}: {f'resumes after step {step} of ' if step else ''}{settings.steps} steps")
        keeper = Keeper(run, source=_source(settings, about), validation=_batches(validation, settings))
        numbers = BatchNumbers(settings.batch_size * parts, first=lambda: task.step, rank=rank, world_size=world_size)
        loader = torch.utils.data.DataLoader(
            crops,
            batch_sampler=numbers,
            num_workers=settings.workers,
            pin_memory=torch.cuda.is_available() and device != "cpu",
            worker_init_fn=_leave_signals_to_the_training,
        )
        _train(task, loader, keeper=keeper, device=device, checkpoint=run.last if step else None)
    if keeper.interrupted:
        report(f"stopped after step {task.step} of {settings.steps}; the same command resumes there")
    else:
        report(f"done: {run.weights}")
    return not keeper.interrupted


def _train(
    task: TrainingTask,
    loader: torch.utils.data.DataLoader,
    *,
    keeper: Keeper,
    device: str,
    checkpoint: Path | None,
) -> None:
    import lightning.pytorch as lightning

    settings = task.settings
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # About numbers of workers, loaders that cannot be resumed (ours resumes by step) and missing validation loops.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = lightning.Trainer(
            accelerator="gpu" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu",
            precision={"32": "32-true", "bf16": "bf16-mixed"}[settings.precision],
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[keeper],
            plugins=[AtomicCheckpoints()],
            default_root_dir=keeper.run.folder,
            **_processes(),
        )
        try:
            with _signals_given_back():
                trainer.fit(task, train_dataloaders=loader, ckpt_path=checkpoint, weights_only=True)
        except torch.OutOfMemoryError as error:
            raise InputError(_out_of_memory(settings)) from error
        except SystemExit as error:
            # Lightning's answer to an interrupt while the run is set up, or to a second one.
            raise KeyboardInterrupt from error


@contextmanager
def _signals_given_back() -> Iterator[None]:
    """The caller's handlers are there again afterwards, whatever ends the training.

    Lightning's own would stay in part. A forked process that has them does not end when it is told to, and the pools
    that nnU-Net forks would then wait for it for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that was not set from Python cannot be set from there
                signal.signal(number, handler)


def _processes() -> dict[str, Any]:
    """Devices and nodes, as torchrun started the processes."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        return {"devices": 1}
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    # In a step of the generator the discriminators get no gradient, and the other way round.
    return {"devices": local, "num_nodes": world_size // local, "strategy": "ddp_find_unused_parameters_true"}


def _batches(crops: torch.utils.data.Dataset, settings: TrainingSettings) -> list[dict[str, torch.Tensor]]:
    starts = range(0, settings.validation_crops, settings.batch_size)
    numbers = [range(start, min(start + settings.batch_size, settings.validation_crops)) for start in starts]
    return [torch.utils.data.default_collate([crops[k] for k in batch]) for batch in numbers]


def _source(settings: TrainingSettings, about: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    return {"trained_on": about, "settings": asdict(settings)}


def _out_of_memory(settings: TrainingSettings) -> str:
    patch, batch = settings.patch_size, settings.batch_size
    if batch > 1:
        advice = f"`batch_size` {batch // 2}"
    else:
        # Multiples of 32 are possible for the published architecture: 96 becomes 64, and 64 becomes 32.
        z, x, y = (str(max(32, n * 2 // 3 // 32 * 32)) for n in patch)
        advice = f"`patch_size` {z} {y} {x}"
    more = "" if settings.precision == "bf16" else ", or `assignments` precision=bf16"
    return (
        f"out of GPU memory with patches of {' x '.join(map(str, patch))} and a batch of {batch}; try {advice}{more}; "
        "a run that has a checkpoint starts again then (`overwrite`)"
    )


def _leave_signals_to_the_training(_: int) -> None:
    """Ctrl-C and torchrun signal all processes; a worker that dies of it would take the step in hand with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _silent(_: str) -> None:
    pass
