"""The trainer classes for nnU-Net's `-tr`, by name. Importing this package imports none of them."""

_DEMO = "nnunet_difftumor.trainers.demo"
_SHORT = "nnunet_difftumor.trainers.short"
_TINY = "nnunet_difftumor.trainers.tiny"

# Trainer class -> the module that defines it.
TRAINERS = {
    "nnUNetTrainerDiffTumor": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_5epochs": _SHORT,
    "nnUNetTrainerDiffTumor_50epochs": _SHORT,
    "nnUNetTrainerDiffTumor_250epochs": _SHORT,
    "nnUNetTrainerDiffTumorDemo": _DEMO,
    "nnUNetTrainerDiffTumorTiny": _TINY,
    "nnUNetTrainerDiffTumorLabelFree": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFree_5epochs": _SHORT,
    "nnUNetTrainerDiffTumorLabelFree_50epochs": _SHORT,
    "nnUNetTrainerDiffTumorLabelFree_250epochs": _SHORT,
    "nnUNetTrainerDiffTumorLabelFreeDemo": _DEMO,
    "nnUNetTrainerDiffTumorLabelFreeTiny": _TINY,
}
