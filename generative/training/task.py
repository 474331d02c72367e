"""What both trainings share as Lightning modules: the count of steps, stopping on NaN, seeded weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import nn

from nnunet_difftumor.generative.training.settings import TrainingSettings
from nnunet_difftumor.generative.weights import Description, Volumes


class DivergedError(Exception):
    """The loss is NaN or infinite; the weights of the last checkpoint are not touched."""


class TrainingTask(lightning.LightningModule):
    """A network in training. `step` counts the batches that are done; it is stored with the checkpoint.

    All randomness comes from the crops (`crops.py`) and from generators seeded by (seed, step): nothing else has to be
    stored for a run to resume exactly.

    Attributes:
        volumes: what the training volumes are.
        step: batches done.
        scalars: figures of the last batch, floats on this process.
    """

    # Of the validation; the lowest is the best.
    best_by = ""
    # Of the pictures of the validation.
    columns: tuple[str, ...] = ()
    volumes: Volumes

    def __init__(self, settings: TrainingSettings):
        super().__init__()
        self.automatic_optimization = False
        self.settings = settings
        self.step = 0
        self.scalars: dict[str, float] = {}

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """One step: all optimizers once."""
        self.scalars = {name: torch.as_tensor(value).detach().item() for name, value in self.learn(batch).items()}
        self.step += 1

    def learn(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Updates the weights and returns figures."""
        raise NotImplementedError

    def validate(self, batches: list[dict[str, torch.Tensor]]) -> tuple[dict[str, float], torch.Tensor]:
        """Figures over fixed batches, and pictures of the first crops: float (rows, columns, h, w) in [-1, 1]."""
        raise NotImplementedError

    def export(self) -> tuple[nn.Module, Description]:
        """What is saved as weights; the description without `source`."""
        raise NotImplementedError

    def generator(self, purpose: int) -> torch.Generator:
        """On the CPU, the same in every process: a function of seed, step and purpose."""
        seed = np.random.SeedSequence([self.settings.seed, self.step, purpose]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> np.uint64(1)))

    def update(self, optimizer: Any, loss: torch.Tensor, *, parts: int = 1, last: bool = True) -> None:
        """Adds the gradient of loss / parts, and after the last part makes the optimizer's step.

        Raises:
            DivergedError: before anything is changed, if the loss is not finite.
        """
        if not loss.isfinite():
            raise DivergedError(f"the loss became {loss.item()} in step {self.step + 1}")
        self.manual_backward(loss / parts)
        if last:
            if self.settings.gradient_clip:
                self.clip_gradients(optimizer, self.settings.gradient_clip, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()

    def check_finite(self) -> None:
        """A gradient may overflow where the loss does not.

        Raises:
            DivergedError: if a weight is NaN or infinite.
        """
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise DivergedError(f"{name} became NaN or infinite by step {self.step}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["step"] = self.step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.step = checkpoint["step"]

    def adam(self, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam as the settings say."""
        return torch.optim.Adam(parameters, lr=self.settings.learning_rate, betas=self.settings.betas)


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Modules made in the block get weights from the seed.

    torch's modules take them from the global generator only; its state is as before afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def middle_slices(volume: torch.Tensor, index: Callable[[int], int]) -> torch.Tensor:
    """Axial slice index(b) of each volume (b, 1, z, x, y), as images (b, h, w) with front above and right on the left:
    the way scans are looked at.
    """
    return torch.stack([volume[b, 0, index(b)].T.flip(0, 1) for b in range(len(volume))]).float().cpu()
