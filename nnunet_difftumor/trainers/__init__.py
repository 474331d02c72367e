"""The trainer classes for nnU-Net's `-tr`, by name. Importing this package imports none of them."""

# Trainer class -> the module that defines it.
TRAINERS = {
    "nnUNetTrainerDiffTumor": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_5epochs": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_50epochs": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_250epochs": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumorDemo": "nnunet_difftumor.trainers.demo",
    "nnUNetTrainerDiffTumorTiny": "nnunet_difftumor.trainers.tiny",
    "nnUNetTrainerDiffTumorLabelFree": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFree_5epochs": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFree_50epochs": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFree_250epochs": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFreeDemo": "nnunet_difftumor.trainers.demo",
    "nnUNetTrainerDiffTumorLabelFreeTiny": "nnunet_difftumor.trainers.tiny",
}
