"""What happens after a step of a training: figures, pictures, validation, checkpoints, weights, and stopping."""

import datetime
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.generative.training import ranks
from nnunet_difftumor.generative.training.pictures import validation_picture
from nnunet_difftumor.generative.training.run_folder import Curve, RunFolder, made_with
from nnunet_difftumor.generative.training.task import TrainingTask
from nnunet_difftumor.generative.weights import save_weights

_SECONDS_BETWEEN_LINES = 60.0


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are never half-written, and loaded without running anything from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


class Keeper(lightning.Callback):
    """Keeps a run: after every step it does what the settings say is due.

    SIGINT and SIGTERM end the run after the step in hand, with a checkpoint; a second SIGINT ends it at once. Whoever
    starts the training gives the signals back.

    Args:
        run: where everything goes.
        source: for the weights' JSON.
        validation: fixed batches.

    Attributes:
        figures: of the last validation.
        interrupted: whether a signal ended the run.
    """

    def __init__(self, run: RunFolder, *, source: dict[str, Any], validation: list[dict[str, torch.Tensor]]):
        self.run, self.source, self.validation = run, source | {"made_with": made_with()}, validation
        self.figures: dict[str, float] = {}
        self.best: float | None = None
        self.interrupted = False
        self._asked_to_stop = False
        self._closing: list[Callable[[], None]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self.figures, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.figures, self.best = state_dict["figures"], state_dict["best"]

    def on_train_start(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        self._time, self._timed_step, self._next_line = time.monotonic(), task.step, 0.0
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._on_signal)
        if trainer.is_global_zero:
            from torch.utils.tensorboard import SummaryWriter
            from tqdm import tqdm

            self._curve = Curve(self.run.folder / "curve.jsonl", step=task.step)
            # What a killed run wrote after its checkpoint is hidden.
            self._board = SummaryWriter(str(self.run.folder / "tensorboard"), purge_step=task.step + 1)
            self._bar = tqdm(total=task.settings.steps, initial=task.step, unit="step", disable=None)
            self._closing = [self._curve.close, self._board.close, self._bar.close]
            if task.step:
                # Killed between checkpoint and weights, a run leaves weights that are older or do not fit together.
                self._export(task, self.run.weights)

    def on_train_batch_end(self, trainer: lightning.Trainer, task: TrainingTask, *_: Any) -> None:
        settings, step = task.settings, task.step
        self.interrupted = ranks.any_of(self._asked_to_stop, task.device)
        done = step >= settings.steps
        if trainer.is_global_zero:
            self._bar.update(1)
        if step % settings.log_every == 0 or done:
            self._log(trainer, task)
        improved = False
        if step % settings.validate_every == 0 or done:
            improved = self._validate(trainer, task)
        if step % settings.checkpoint_every == 0 or done or improved or self.interrupted:
            self._save(trainer, task, improved=improved)
        trainer.should_stop = done or self.interrupted

    def teardown(self, *_: Any, **__: Any) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        for close in self._closing:
            close()
        self._closing = []

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._asked_to_stop = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _log(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        if not trainer.is_global_zero:
            return
        now = time.monotonic()
        speed = (now - self._time) / max(task.step - self._timed_step, 1)
        self._time, self._timed_step = now, task.step
        self._curve.add(task.step, task.scalars, part="training")
        for name, value in {**task.scalars, "seconds_per_step": speed}.items():
            self._board.add_scalar(f"training/{name}", value, task.step)
        loss = f"{task.scalars['loss']:.4f}"
        self._bar.set_postfix(loss=loss)
        if self._bar.disable and now >= self._next_line:
            # In the log of a batch system, where there is no bar.
            self._next_line = now + _SECONDS_BETWEEN_LINES
            left = datetime.timedelta(seconds=round(speed * (task.settings.steps - task.step)))
            self._bar.write(
                f"step {task.step} of {task.settings.steps}: loss {loss}, {speed:.3g} s a step, about {left} left"
            )

    def _validate(self, trainer: lightning.Trainer, task: TrainingTask) -> bool:
        """Every process does the same; returns whether the figures are the best so far."""
        batches = [{key: value.to(task.device) for key, value in batch.items()} for batch in self.validation]
        self.figures, pictures = task.validate(batches)
        if trainer.is_global_zero:
            self._curve.add(task.step, self.figures, part="validation")
            for name, value in self.figures.items():
                self._board.add_scalar(f"validation/{name}", value, task.step)
            told = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
            self._bar.write(f"step {task.step} of {task.settings.steps}: {told}")
            title = f"step {task.step} of {task.settings.steps}"
            image = validation_picture(pictures, task.columns, volumes=task.volumes, title=title)
            self._board.add_image("validation", image, task.step, dataformats="HWC")
            _write_png(self.run.folder / "pictures" / f"step_{task.step:07d}.png", image)
        value = ranks.of_first(self.figures[task.best_by], task.device)
        improved = self.best is None or value < self.best
        self.best = value if improved else self.best
        return improved

    def _save(self, trainer: lightning.Trainer, task: TrainingTask, *, improved: bool) -> None:
        task.check_finite()
        trainer.save_checkpoint(self.run.last)
        if improved:
            trainer.save_checkpoint(self.run.best)
        if trainer.is_global_zero:
            self._export(task, self.run.weights)
            if improved:
                self._export(task, self.run.best_weights)
            self._board.flush()

    def _export(self, task: TrainingTask, path: Any) -> None:
        import dataclasses

        network, description = task.export()
        source = self.source | {"steps": task.step, "validation": self.figures}
        save_weights(path, network, description=dataclasses.replace(description, source=source))


def _write_png(path: Any, image: np.ndarray) -> None:
    from matplotlib.image import imsave

    with atomic_path(path) as temporary:
        imsave(temporary, image, format="png")
