"""The trainer classes for nnU-Net's `-tr`, by name. Importing this package imports none of them."""

# Trainer class -> the module that defines it.
TRAINERS = {
    "nnUNetTrainerDiffTumor": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_5epochs": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_50epochs": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_250epochs": "nnunet_difftumor.trainers.difftumor",
    "nnUNetTrainerDiffTumor_paper": "nnunet_difftumor.trainers.papers",
    "nnUNetTrainerDiffTumor_scaling": "nnunet_difftumor.trainers.papers",
    "nnUNetTrainerDiffTumorLabelFree_hu2023": "nnunet_difftumor.trainers.papers",
    "nnUNetTrainerDiffTumorDemo": "nnunet_difftumor.trainers.demo",
    "nnUNetTrainerDiffTumorTiny": "nnunet_difftumor.trainers.tiny",
    "nnUNetTrainerDiffTumorLabelFree": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFree_5epochs": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFree_50epochs": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFree_250epochs": "nnunet_difftumor.trainers.label_free",
    "nnUNetTrainerDiffTumorLabelFreeDemo": "nnunet_difftumor.trainers.demo",
    "nnUNetTrainerDiffTumorLabelFreeTiny": "nnunet_difftumor.trainers.tiny",
}
# Before the name of any other trainer, these put synthetic tumors into it.
ON = "nnUNetTrainerDiffTumor_on_"
LABEL_FREE_ON = "nnUNetTrainerDiffTumorLabelFree_on_"


def module_of(name: str) -> str | None:
    """The module that has a trainer of this name; None if it is not one of this package."""
    if name.startswith((ON, LABEL_FREE_ON)):
        return "nnunet_difftumor.trainers.composed"
    return TRAINERS.get(name)
