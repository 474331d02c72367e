"""The networks that come from MONAI, an optional package, in the sizes of the papers."""

import importlib
from collections.abc import Sequence
from types import ModuleType

from torch import Tensor, nn

from nnunet_difftumor.errors import InputError

# Channels of the first stage; the attention heads are MONAI's.
SWIN_UNETR_FEATURES = {"tiny": 12, "small": 24, "base": 48}
UNET_PLUS_PLUS_OUTPUTS = 4


def monai_nets() -> ModuleType:
    """`monai.networks.nets`.

    Raises:
        InputError: MONAI is not installed.
    """
    try:
        importlib.import_module("monai")
    except ModuleNotFoundError as error:
        if error.name != "monai":
            raise
        raise InputError(
            'the network of this trainer is MONAI\'s, which is not installed; pip install "nnunet-difftumor[backbones]"'
        ) from error
    return importlib.import_module("monai.networks.nets")


def swin_unetr(input_channels: int, output_channels: int, *, size: str) -> nn.Module:
    """Swin UNETR (Hatamizadeh et al., 2022); `size` is one of SWIN_UNETR_FEATURES, as in Hu et al. (CVPR 2023)."""
    return monai_nets().SwinUNETR(
        in_channels=input_channels, out_channels=output_channels, feature_size=SWIN_UNETR_FEATURES[size]
    )


def unetr(input_channels: int, output_channels: int, *, patch_size: Sequence[int]) -> nn.Module:
    """UNETR (Hatamizadeh et al., 2022) on a ViT-B/16; its position embedding fits one patch size (z, y, x) only."""
    network = monai_nets().UNETR(
        in_channels=input_channels, out_channels=output_channels, img_size=tuple(int(size) for size in patch_size)
    )
    for name, parameter in network.named_parameters():
        # MONAI makes them even without cross attention; training on several GPUs fails where there is no gradient.
        if "norm_cross_attn" in name:
            parameter.requires_grad_(False)
    return network


def seg_res_net(input_channels: int, output_channels: int) -> nn.Module:
    """SegResNet (Myronenko, 2018, without the autoencoder's branch) with 16 channels in its first stage."""
    return monai_nets().SegResNet(in_channels=input_channels, out_channels=output_channels, init_filters=16)


class UNetPlusPlus(nn.Module):
    """UNet++ (Zhou et al., 2018), three-dimensional, with four outputs of full resolution.

    Input (b, c, z, y, x); output (b, output_channels, z, y, x), or with deep supervision a list of four of them, that
    of the deepest path first.
    """

    def __init__(self, input_channels: int, output_channels: int, *, deep_supervision: bool):
        super().__init__()
        # nnU-Net switches `decoder.deep_supervision`, which MONAI's network has.
        self.decoder = monai_nets().BasicUNetPlusPlus(
            in_channels=input_channels, out_channels=output_channels, deep_supervision=deep_supervision
        )

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        outputs = self.decoder(images)[::-1]
        return outputs if self.decoder.deep_supervision else outputs[0]
