"""Trainers small enough for a test on two CPU cores: a tiny network, a few iterations, no mirroring at inference."""

from collections.abc import Sequence

import torch

from nnunet_difftumor.trainers.difftumor import nnUNetTrainerDiffTumor
from nnunet_difftumor.trainers.label_free import nnUNetTrainerDiffTumorLabelFree


def shrink_plans(
    plans: dict,
    configuration: str,
    *,
    patch_size: Sequence[int] = (32, 32, 32),
    features: Sequence[int] = (8, 16, 32),
) -> None:
    """Replaces patch size and network of a configuration in place; nnU-Net saves them with the run, for inference.

    Args:
        plans: nnU-Net's plans.
        configuration: name of a 3D configuration.
        patch_size: voxels (z, y, x), each a multiple of 2 to the power of the number of stages less one.
        features: channels of each stage, one convolution per stage.
    """
    settings = plans["configurations"][configuration]
    settings["patch_size"] = [int(size) for size in patch_size]
    stages = len(features)
    settings["architecture"] = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


class _Tiny:
    """Two epochs of four iterations with a tiny network."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ):
        shrink_plans(plans, configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 2
        self.num_iterations_per_epoch = 4
        self.num_val_iterations_per_epoch = 2


class nnUNetTrainerDiffTumorTiny(_Tiny, nnUNetTrainerDiffTumor):
    """nnUNetTrainerDiffTumor for tests."""


class nnUNetTrainerDiffTumorLabelFreeTiny(_Tiny, nnUNetTrainerDiffTumorLabelFree):
    """nnUNetTrainerDiffTumorLabelFree for tests."""
