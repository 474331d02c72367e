"""Trainers of somebody else, in a folder that nnUNet_extTrainer names: one that can be composed, others that cannot."""

from pathlib import Path

FOREIGN = "nnUNetTrainerForeign"

_MODULE = '''
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN


class nnUNetTrainerForeign(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = 3e-3
        self.num_epochs = 70

    def _build_loss(self):
        loss = super()._build_loss()
        return lambda *arguments: 2 * loss(*arguments)


class nnUNetTrainerForeignSplit(nnUNetTrainer):
    def do_split(self):
        return [], []


class nnUNetTrainerForeignData(nnUNetTrainer):
    def get_tr_and_val_datasets(self):
        return None, None


class nnUNetTrainerForeignLoader(nnUNetTrainer):
    def get_dataloaders(self):
        return iter(()), iter(())


class nnUNetTrainerForeignArguments(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, unpack=True, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)


class _Short:
    """Two epochs of two iterations with a tiny network."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        from nnunet_difftumor.trainers.tiny import shrink_plans

        shrink_plans(plans, configuration, features=(4, 8, 8))
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.num_iterations_per_epoch = 2
        self.num_val_iterations_per_epoch = 1


class nnUNetTrainerForeignShort(_Short, nnUNetTrainerForeign):
    pass


class nnUNetTrainerShortDA5(_Short, nnUNetTrainerDA5):
    pass


class nnUNetTrainerShortBN(_Short, nnUNetTrainerBN):
    pass
'''


def write_foreign_trainers(folder: Path) -> Path:
    """Writes the module into a folder, which is returned."""
    (folder / "foreign_module.py").write_text(_MODULE)
    return folder
