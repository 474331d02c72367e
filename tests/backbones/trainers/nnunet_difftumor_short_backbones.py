"""Backbones for `nnUNetv2_train -tr`, found through nnUNet_extTrainer: one short epoch, small patches, no mirroring."""

import torch

from nnunet_difftumor.backbones.monai_trainers import nnUNetTrainerSwinUNETRTiny
from nnunet_difftumor.backbones.stu_net_trainers import nnUNetTrainerSTUNetSmall


class _Short:
    patch_size: tuple[int, int, int]

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ):
        plans["configurations"][configuration]["patch_size"] = list(self.patch_size)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802 (nnU-Net's name)
        rotation, dummy_2d, initial_patch_size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, initial_patch_size, None


class nnUNetTrainerShortSwinUNETR(_Short, nnUNetTrainerSwinUNETRTiny):
    patch_size = (32, 64, 64)

    def perform_actual_validation(self, save_probabilities: bool = False):
        self.print_to_log_file("No validation in this trainer.")


class nnUNetTrainerShortSTUNet(_Short, nnUNetTrainerSTUNetSmall):
    patch_size = (48, 80, 80)
