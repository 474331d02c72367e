"""Trainers of STU-Net, which takes its strides from the plans."""

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_difftumor.backbones.other_network import OtherNetworkTrainer
from nnunet_difftumor.backbones.stu_net import BASE, LARGE, SMALL, STAGES, STUNet, STUNetSize


def strides_of(configuration_manager: ConfigurationManager) -> list[tuple[int, ...]]:
    """Strides (z, y, x) of STU-Net's stages after the first: the plans', of which it takes five at most.

    Where the plans have fewer, the last stages keep the resolution: the weights are always the same.
    """
    first, *planned = (tuple(int(step) for step in stride) for stride in configuration_manager.pool_op_kernel_sizes)
    unchanged = (1,) * len(first)
    return (planned + [unchanged] * STAGES)[: STAGES - 1]


class _STUNetTrainer(OtherNetworkTrainer):
    """Deep supervision is that of a U-Net with STU-Net's strides."""

    has_deep_supervision = True
    size: STUNetSize

    @classmethod
    def patch_multiple(cls, configuration_manager: ConfigurationManager) -> tuple[int, ...]:
        return tuple(int(step) for step in np.prod(strides_of(configuration_manager), axis=0))

    @classmethod
    def network_of(
        cls, configuration: ConfigurationManager, inputs: int, outputs: int, *, deep_supervision: bool
    ) -> nn.Module:
        return STUNet(
            inputs,
            outputs,
            size=cls.size,
            strides=strides_of(configuration),
            deep_supervision=deep_supervision,
        )

    def _get_deep_supervision_scales(self):
        if not self.enable_deep_supervision:
            return None
        shrunk = np.cumprod([(1, 1, 1), *strides_of(self.configuration_manager)], axis=0)
        return (1 / shrunk[:-1]).tolist()


class nnUNetTrainerSTUNetSmall(_STUNetTrainer):
    """nnU-Net's trainer with STU-Net-S, 14.6 million parameters (Huang et al., 2023)."""

    size = SMALL


class nnUNetTrainerSTUNetBase(_STUNetTrainer):
    """nnU-Net's trainer with STU-Net-B, 58.3 million parameters (Huang et al., 2023)."""

    size = BASE


class nnUNetTrainerSTUNetLarge(_STUNetTrainer):
    """nnU-Net's trainer with STU-Net-L, 440 million parameters (Huang et al., 2023)."""

    size = LARGE
