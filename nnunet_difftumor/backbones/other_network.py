"""What nnU-Net's trainer needs to train another network than that of its plans."""

from collections.abc import Sequence

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_difftumor.backbones.patch import check_patch


class OtherNetworkTrainer(nnUNetTrainer):
    """nnU-Net's trainer for a three-dimensional network of another kind; its subclasses build the network.

    Optimizer, schedule, augmentation and inference are nnU-Net's, and so is the loss of each output.

    Attributes:
        has_deep_supervision: whether the network gives several outputs, the one that predicts first; nnU-Net switches
            it as `decoder.deep_supervision`.
    """

    has_deep_supervision = False

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ):
        # Before nnU-Net makes a folder for the results.
        self.check_packages()
        plans_manager = PlansManager(plans)
        configuration_manager = plans_manager.get_configuration(configuration)
        check_patch(
            configuration_manager.patch_size,
            self.patch_multiple(configuration_manager),
            trainer=type(self).__name__,
            configuration=configuration,
            dataset=plans_manager.dataset_name,
        )
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = self.has_deep_supervision

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        return cls.network_of(
            configuration_manager, num_input_channels, num_output_channels, deep_supervision=enable_deep_supervision
        )

    @classmethod
    def network_of(
        cls, configuration: ConfigurationManager, inputs: int, outputs: int, *, deep_supervision: bool
    ) -> nn.Module:
        """The network.

        Args:
            configuration: of the plans.
            inputs, outputs: channels.
            deep_supervision: whether it gives several outputs, if it can.
        """
        raise NotImplementedError

    @staticmethod
    def check_packages() -> None:
        """Raises an InputError if a package that the network comes from is missing."""

    @classmethod
    def patch_multiple(cls, configuration_manager: ConfigurationManager) -> Sequence[int]:
        """By what the network divides each axis (z, y, x) of a patch in all."""
        raise NotImplementedError

    def set_deep_supervision_enabled(self, enabled: bool):
        if self.has_deep_supervision:
            super().set_deep_supervision_enabled(enabled)
