"""The trainers of `difftumor demo`: as long as their plans say, and with the network before the first epoch kept."""

from pathlib import Path

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.nnunet.training_length import TRAINING_KEY
from nnunet_difftumor.trainers.difftumor import nnUNetTrainerDiffTumor
from nnunet_difftumor.trainers.label_free import nnUNetTrainerDiffTumorLabelFree
from nnunet_difftumor.trainers.tile_step import tiles_every

# nnU-Net's half costs three times as many tiles, minutes on a CPU.
TILE_STEP = 0.75
UNTRAINED_CHECKPOINT = "checkpoint_untrained.pth"


class _Demo:
    """A short training whose first state is kept, so that what it learned can be measured.

    Differences to the trainer that it is mixed into: AdamW, which gets further in a few hundred iterations than
    nnU-Net's SGD, whose momentum alone averages over a hundred; and the step between tiles in validation.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        if TRAINING_KEY not in plans:
            raise InputError(f"plans {plans['plans_name']}: are not those of `difftumor demo`; use another trainer")
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 10)
        self.initial_lr = 3e-3
        self.save_every = 1  # nnU-Net's 50 epochs are longer than the demo, which has to resume after an interruption

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def perform_actual_validation(self, save_probabilities: bool = False):
        with tiles_every(TILE_STEP):
            super().perform_actual_validation(save_probabilities)

    def on_train_start(self):
        super().on_train_start()
        if self.current_epoch == 0:
            self.save_checkpoint(str(Path(self.output_folder) / UNTRAINED_CHECKPOINT))


class nnUNetTrainerDiffTumorDemo(_Demo, nnUNetTrainerDiffTumor):
    """nnUNetTrainerDiffTumor for the demo."""


class nnUNetTrainerDiffTumorLabelFreeDemo(_Demo, nnUNetTrainerDiffTumorLabelFree):
    """nnUNetTrainerDiffTumorLabelFree for the demo with healthy scans only."""
