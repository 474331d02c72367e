"""The papers' own trainings of segmenters, for plans of `difftumor prepare --recipe`."""

import math
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import sample_scalar
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
from torch.optim.lr_scheduler import LRScheduler

from nnunet_difftumor.prepared.nnunet.training_length import TrainingLength
from nnunet_difftumor.prepared.recipes import RECIPES, check_planned_by
from nnunet_difftumor.trainers.label_free import SyntheticTumorsOnly
from nnunet_difftumor.trainers.synthetic_tumors import SyntheticTumors
from nnunet_difftumor.trainers.tile_step import tiles_every


class WarmUpCosine(LRScheduler):
    """Linear warm-up, then a cosine to 0, both by epochs.

    Args:
        optimizer: whose learning rate is set.
        peak: learning rate that the warm-up ends at.
        warm_up: epochs of the warm-up.
        epochs: of the whole training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, peak: float, *, warm_up: int, epochs: int) -> None:
        self._peak, self._warm_up, self._epochs, self._next = peak, warm_up, epochs, 0
        super().__init__(optimizer)

    def learning_rate(self, epoch: int) -> float:
        """Of an epoch, counted from 0."""
        if epoch < self._warm_up:
            return self._peak * (epoch + 1) / self._warm_up
        return self._peak * (1 + math.cos(math.pi * (epoch - self._warm_up) / (self._epochs - self._warm_up))) / 2

    def step(self, epoch: int | None = None) -> None:
        """As nnU-Net calls it, with the epoch that begins."""
        epoch, self._next = (self._next, self._next + 1) if epoch is None else (epoch, epoch + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class ShiftIntensityTransform(ImageOnlyTransform):
    """Adds one number to all voxels.

    Args:
        offset: the greatest number, either sign, in units of the preprocessed intensities.
    """

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def get_parameters(self, **data: Any) -> dict[str, float]:
        return {"shift": sample_scalar((-self.offset, self.offset))}

    def _apply_to_image(self, img: torch.Tensor, **params: float) -> torch.Tensor:
        return img + params["shift"]


class _Recipe:
    """Checks the plans, and predicts with the paper's overlap.

    Attributes:
        recipe: whose plans it needs, a name in `RECIPES`.
    """

    recipe: str

    def initialize(self) -> None:
        check_planned_by(self.plans_manager.plans, self.recipe, trainer=type(self).__name__)
        super().initialize()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with tiles_every(RECIPES[self.recipe].tile_step):
            super().perform_actual_validation(save_probabilities)


class WarmUpCosineTraining(nnUNetTrainerNoDA):
    """What DiffTumor's supplement E.2 and Hu et al., section 4, have in common.

    An epoch of theirs shows every case once, in batches of two.
    """

    # "the base learning rate is set at 0.0002"; the decay of weights and the length of the warm-up are those of
    # DiffTumor's public code, which the papers do not give.
    _LEARNING_RATE, _WEIGHT_DECAY, _WARM_UP_EPOCHS = 2e-4, 1e-5, 100
    # E.2: rotated by 90 degrees with probability .1, shifted by up to .1 of [0, 1] with .2. In the plane of the slices.
    _ROTATION, _SHIFT, _MOST_SHIFT = 0.1, 0.2, 0.1
    _IN_PLANE = (1, 2)

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        roles = self.roles()
        if TrainingLength.of(self.plans_manager.plans) is None:
            cases = len({*roles.train, *roles.bases})
            self.num_iterations_per_epoch = math.ceil(cases / self.batch_size)
            # As many to validate as nnU-Net has of its 250.
            self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        super().on_train_start()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        self.initial_lr = self._LEARNING_RATE
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.initial_lr, weight_decay=self._WEIGHT_DECAY)
        warm_up = min(self._WARM_UP_EPOCHS, max(1, self.num_epochs // 20))
        return optimizer, WarmUpCosine(optimizer, self.initial_lr, warm_up=warm_up, epochs=self.num_epochs)

    @classmethod
    def get_training_transforms(cls, patch_size: Any, *args: Any, **kwargs: Any) -> BasicTransform:
        rest = nnUNetTrainerNoDA.get_training_transforms(patch_size, *args, **kwargs)
        drawn: list[BasicTransform] = [
            RandomTransform(ShiftIntensityTransform(cls._MOST_SHIFT), apply_probability=cls._SHIFT)
        ]
        if len(set(np.asarray(patch_size)[list(cls._IN_PLANE)])) == 1:
            turn = Rot90Transform(1, allowed_axes=set(cls._IN_PLANE))
            drawn.insert(0, RandomTransform(turn, apply_probability=cls._ROTATION))
        return ComposeTransforms([*drawn, rest])


class nnUNetTrainerDiffTumor_paper(_Recipe, SyntheticTumors, WarmUpCosineTraining):
    """The Segmentation Model of DiffTumor (CVPR 2024, supplement E.2) on real and synthetic tumors: 2,000 epochs.

    When to use: to do as the paper does, with plans of `difftumor prepare --recipe difftumor`.
    """

    recipe = "difftumor"
    epochs = 2000


class nnUNetTrainerDiffTumorLabelFree_hu2023(_Recipe, SyntheticTumorsOnly, WarmUpCosineTraining):
    """The training of Hu et al. (CVPR 2023, section 4) on synthetic tumors only: 4,000 epochs.

    When to use: to do as the paper does, with plans of `difftumor prepare --recipe hu2023`. The paper names no
    augmentation: that of DiffTumor's supplement stands in, its shift in units of the standard deviation.
    """

    recipe = "hu2023"
    epochs = 4000


class nnUNetTrainerDiffTumor_scaling(_Recipe, SyntheticTumors, nnUNetTrainer):
    """The training of Scaling Tumor Segmentation (ICCV 2025, supplement C.2): nnU-Net's own, mirroring included.

    SGD with a learning rate of .01, 1,000 epochs of 250 iterations, nnU-Net's augmentation, mirroring when predicting.
    When to use: to do as the paper does, with plans of `difftumor prepare --recipe scaling`.
    """

    recipe = "scaling"
    mirrors_as_trainer = True
