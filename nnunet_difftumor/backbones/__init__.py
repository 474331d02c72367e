"""Trainers for nnU-Net's `-tr` that differ from its own by their network only, by name: the backbones of the papers.

Importing this package imports none of them.
"""

# Trainer class -> the module that defines it.
BACKBONES = {
    "nnUNetTrainerSwinUNETRTiny": "nnunet_difftumor.backbones.monai_trainers",
    "nnUNetTrainerSwinUNETRSmall": "nnunet_difftumor.backbones.monai_trainers",
    "nnUNetTrainerSwinUNETRBase": "nnunet_difftumor.backbones.monai_trainers",
    "nnUNetTrainerUNETR": "nnunet_difftumor.backbones.monai_trainers",
    "nnUNetTrainerSegResNet": "nnunet_difftumor.backbones.monai_trainers",
    "nnUNetTrainerUNetPlusPlus": "nnunet_difftumor.backbones.monai_trainers",
    "nnUNetTrainerSTUNetSmall": "nnunet_difftumor.backbones.stu_net_trainers",
    "nnUNetTrainerSTUNetBase": "nnunet_difftumor.backbones.stu_net_trainers",
    "nnUNetTrainerSTUNetLarge": "nnunet_difftumor.backbones.stu_net_trainers",
}
