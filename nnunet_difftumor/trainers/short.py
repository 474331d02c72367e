"""The trainers with fewer epochs, and nothing else changed: for comparisons, and to see whether a setup works."""

import torch

from nnunet_difftumor.trainers.difftumor import nnUNetTrainerDiffTumor
from nnunet_difftumor.trainers.label_free import nnUNetTrainerDiffTumorLabelFree


def _with_epochs(base: type, epochs: int) -> type:
    # The signature is nnU-Net's: it looks up every parameter by its name.
    def __init__(  # noqa: N807
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ):
        base.__init__(self, plans, configuration, fold, dataset_json, device)
        self.num_epochs = epochs

    return type(
        f"{base.__name__}_{epochs}epochs",
        (base,),
        {"__init__": __init__, "__module__": __name__, "__doc__": f"{base.__name__} for {epochs} epochs."},
    )


nnUNetTrainerDiffTumor_5epochs = _with_epochs(nnUNetTrainerDiffTumor, 5)
nnUNetTrainerDiffTumor_50epochs = _with_epochs(nnUNetTrainerDiffTumor, 50)
nnUNetTrainerDiffTumor_250epochs = _with_epochs(nnUNetTrainerDiffTumor, 250)
nnUNetTrainerDiffTumorLabelFree_5epochs = _with_epochs(nnUNetTrainerDiffTumorLabelFree, 5)
nnUNetTrainerDiffTumorLabelFree_50epochs = _with_epochs(nnUNetTrainerDiffTumorLabelFree, 50)
nnUNetTrainerDiffTumorLabelFree_250epochs = _with_epochs(nnUNetTrainerDiffTumorLabelFree, 250)
