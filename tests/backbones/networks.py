"""What tests of backbones share: their classes, patches that fit them and are no powers of two, and a batch."""

import importlib
import importlib.util

import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from trainer_of import trainer_of

from nnunet_difftumor.backbones import BACKBONES

needs_monai = pytest.mark.skipif(
    importlib.util.find_spec("monai") is None, reason="MONAI is not installed (extra `backbones`)"
)

# As small as the network takes it; phantoms are planned with strides that divide by 8.
PATCHES = {
    "nnUNetTrainerSwinUNETRTiny": (32, 32, 96),
    "nnUNetTrainerSwinUNETRSmall": (32, 96, 32),
    "nnUNetTrainerSwinUNETRBase": (96, 32, 32),
    "nnUNetTrainerUNETR": (48, 16, 32),
    "nnUNetTrainerSegResNet": (24, 8, 40),
    "nnUNetTrainerUNetPlusPlus": (16, 48, 16),
    "nnUNetTrainerSTUNetSmall": (24, 8, 40),
    "nnUNetTrainerSTUNetBase": (40, 24, 8),
    "nnUNetTrainerSTUNetLarge": (8, 24, 16),
}
_LONG = ("nnUNetTrainerSwinUNETRSmall", "nnUNetTrainerSwinUNETRBase", "nnUNetTrainerSTUNetBase")


def marked(name: str):
    """The name as a parameter of a test: MONAI's may be skipped, large ones take long and have small sisters."""
    marks = [needs_monai] if BACKBONES[name].endswith("monai_trainers") else []
    if name in _LONG or name.endswith("Large"):
        marks.append(pytest.mark.long)
    return pytest.param(name, marks=marks)


ALL = [marked(name) for name in BACKBONES]


def trainer_class(name: str) -> type:
    return getattr(importlib.import_module(BACKBONES[name]), name)


def trainer(dataset, name: str, *, patch_size=None, **options):
    """On the prepared phantom, with another patch than that of its plans."""

    def edit(plans):
        plans["configurations"]["3d_fullres"]["patch_size"] = list(patch_size or PATCHES[name])

    return trainer_of(dataset.preprocessed, trainer_class(name), edit_plans=edit, **options)


def batch_for(trainer) -> dict:
    """Noise with labels of all classes, target as nnU-Net's loader gives it."""
    generator = torch.Generator().manual_seed(0)
    patch = tuple(trainer.configuration_manager.patch_size)
    heads = trainer.label_manager.num_segmentation_heads
    scales = trainer._get_deep_supervision_scales()
    labels = torch.randint(0, heads, (2, 1, *patch), generator=generator, dtype=torch.int16)
    if scales is not None:
        downsampled = [DownsampleSegForDSTransform(scales)(segmentation=sample)["segmentation"] for sample in labels]
        labels = [torch.stack(levels) for levels in zip(*downsampled, strict=True)]
    return {"data": torch.randn((2, 1, *patch), generator=generator), "target": labels}
