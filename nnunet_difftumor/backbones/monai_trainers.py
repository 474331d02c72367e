"""Trainers whose networks are MONAI's."""

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_difftumor.backbones.monai_networks import (
    UNET_PLUS_PLUS_OUTPUTS,
    UNetPlusPlus,
    monai_nets,
    seg_res_net,
    swin_unetr,
    unetr,
)
from nnunet_difftumor.backbones.other_network import OtherNetworkTrainer


class _MonaiTrainer(OtherNetworkTrainer):
    """Asks for MONAI before anything is done.

    Attributes:
        divides_by: by what the network divides every axis of a patch.
    """

    divides_by: int

    @staticmethod
    def check_packages() -> None:
        monai_nets()

    @classmethod
    def patch_multiple(cls, configuration_manager: ConfigurationManager) -> tuple[int, int, int]:
        return (cls.divides_by,) * 3


class _SwinUNETR(_MonaiTrainer):
    """Cuts the patch into tokens of 2 x 2 x 2 voxels, and halves it four times more."""

    divides_by = 32
    size: str

    @classmethod
    def network_of(
        cls, configuration: ConfigurationManager, inputs: int, outputs: int, *, deep_supervision: bool
    ) -> nn.Module:
        return swin_unetr(inputs, outputs, size=cls.size)


class nnUNetTrainerSwinUNETRTiny(_SwinUNETR):
    """nnU-Net's trainer with Swin UNETR of 4.1 million parameters (Hu et al., CVPR 2023)."""

    size = "tiny"


class nnUNetTrainerSwinUNETRSmall(_SwinUNETR):
    """nnU-Net's trainer with Swin UNETR of 15.7 million parameters (Hu et al., CVPR 2023)."""

    size = "small"


class nnUNetTrainerSwinUNETRBase(_SwinUNETR):
    """nnU-Net's trainer with Swin UNETR of 62.2 million parameters (Hu et al., CVPR 2023; DiffTumor, CVPR 2024)."""

    size = "base"


class nnUNetTrainerUNETR(_MonaiTrainer):
    """nnU-Net's trainer with UNETR (Chen et al., ICCV 2025)."""

    divides_by = 16

    @classmethod
    def network_of(
        cls, configuration: ConfigurationManager, inputs: int, outputs: int, *, deep_supervision: bool
    ) -> nn.Module:
        return unetr(inputs, outputs, patch_size=configuration.patch_size)


class nnUNetTrainerSegResNet(_MonaiTrainer):
    """nnU-Net's trainer with SegResNet (Chen et al., ICCV 2025)."""

    divides_by = 8

    @classmethod
    def network_of(
        cls, configuration: ConfigurationManager, inputs: int, outputs: int, *, deep_supervision: bool
    ) -> nn.Module:
        return seg_res_net(inputs, outputs)


class nnUNetTrainerUNetPlusPlus(_MonaiTrainer):
    """nnU-Net's trainer with UNet++ (Hu et al., CVPR 2023).

    Its four outputs have full resolution, and count the same in the loss, as in its paper.
    """

    divides_by = 16
    has_deep_supervision = True

    @classmethod
    def network_of(
        cls, configuration: ConfigurationManager, inputs: int, outputs: int, *, deep_supervision: bool
    ) -> nn.Module:
        return UNetPlusPlus(inputs, outputs, deep_supervision=deep_supervision)

    def _get_deep_supervision_scales(self):
        return [[1.0, 1.0, 1.0]] * UNET_PLUS_PLUS_OUTPUTS if self.enable_deep_supervision else None

    def _build_loss(self):
        loss = super()._build_loss()
        if self.enable_deep_supervision:
            # nnU-Net halves the weight from one output to the next, for less resolution, and leaves out the last.
            loss.weight_factors = (1 / UNET_PLUS_PLUS_OUTPUTS,) * UNET_PLUS_PLUS_OUTPUTS
        return loss
