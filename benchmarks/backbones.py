"""Parameters of the backbones, and the memory that a step of training keeps for its backward pass.

Nothing is computed: tensors without content are sent through the networks, and those that autograd keeps are counted,
in float32 and without weights, gradients and optimizer, which take 12 bytes a parameter more. Prints the rows of the
table in docs/backbones.md; with --check fails if the page says anything else.

Run: python benchmarks/backbones.py [--check]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn

from nnunet_difftumor.backbones.monai_networks import UNetPlusPlus, seg_res_net, swin_unetr, unetr
from nnunet_difftumor.backbones.stu_net import BASE, LARGE, SMALL, STUNet, STUNetSize

PAGE = Path(__file__).resolve().parents[1] / "docs" / "backbones.md"
PATCH = (96, 96, 96)
# One channel; background, liver, tumor.
CHANNELS = (1, 3)


def stu_net(size: STUNetSize) -> nn.Module:
    return STUNet(*CHANNELS, size=size, strides=[(2, 2, 2)] * 5, deep_supervision=True)


def residual_encoder_unet() -> nn.Module:
    """What nnUNetPlannerResEncM plans for this patch."""
    return ResidualEncoderUNet(
        1,
        5,
        (32, 64, 128, 256, 320),
        nn.Conv3d,
        3,
        (1, 2, 2, 2, 2),
        (1, 3, 4, 6, 6),
        3,
        (1, 1, 1, 1),
        True,
        nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "nnUNetTrainer": residual_encoder_unet,
    "nnUNetTrainerSwinUNETRTiny": lambda: swin_unetr(*CHANNELS, size="tiny"),
    "nnUNetTrainerSwinUNETRSmall": lambda: swin_unetr(*CHANNELS, size="small"),
    "nnUNetTrainerSwinUNETRBase": lambda: swin_unetr(*CHANNELS, size="base"),
    "nnUNetTrainerUNETR": lambda: unetr(*CHANNELS, patch_size=PATCH),
    "nnUNetTrainerSegResNet": lambda: seg_res_net(*CHANNELS),
    "nnUNetTrainerUNetPlusPlus": lambda: UNetPlusPlus(*CHANNELS, deep_supervision=True),
    "nnUNetTrainerSTUNetSmall": lambda: stu_net(SMALL),
    "nnUNetTrainerSTUNetBase": lambda: stu_net(BASE),
    "nnUNetTrainerSTUNetLarge": lambda: stu_net(LARGE),
}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def kept_bytes(network: nn.Module) -> int:
    """Of one sample: what autograd keeps, each storage once."""
    network = network.to("meta").train()
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(torch.empty((1, 1, *PATCH), device="meta"))
    assert outputs is not None
    return sum(storage.nbytes() for storage in kept.values())


def row(name: str) -> tuple[str, str]:
    """Millions of parameters and GB, as the page has them."""
    network = NETWORKS[name]()
    return f"{parameters(network) / 1e6:.2f}", f"{kept_bytes(network) / 1e9:.1f}"


def said() -> dict[str, tuple[str, str]]:
    """Trainer -> its row, as it stands on the page."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `nnUNet")]
    return {cells[0].strip("`"): (cells[2], cells[4]) for cells in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if docs/backbones.md says anything else")
    check = parser.parse_args().check
    measured = {name: row(name) for name in NETWORKS}
    for name, (millions, gigabytes) in measured.items():
        print(f"{name}: {millions} million parameters, {gigabytes} GB")
    if check and measured != said():
        raise SystemExit(f"{PAGE} says {said()}")


if __name__ == "__main__":
    main()
