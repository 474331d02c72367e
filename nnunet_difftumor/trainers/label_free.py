"""nnU-Net's trainer on synthetic tumors only: no tumor annotation is needed (Hu et al., CVPR 2023)."""

from contextlib import contextmanager
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_difftumor.prepared.label_free_validation import VALIDATION_NOTE, mark_summary, validation_folder
from nnunet_difftumor.prepared.nnunet.preprocessed_dataset import PreprocessedDataset
from nnunet_difftumor.prepared.roles import Roles, label_free_roles
from nnunet_difftumor.trainers.synthetic_tumors import SyntheticTumors


class SyntheticTumorsOnly(SyntheticTumors):
    """Like `SyntheticTumors`, for training and validation without any real tumor."""

    def roles(self) -> Roles:
        return self.synthesis.with_usable_bases(label_free_roles(self.synthesis.splits(), self.fold))

    def get_tr_and_val_datasets(self):
        roles = self.roles()
        self.print_to_log_file(VALIDATION_NOTE)
        folder = validation_folder(self.synthesis.dataset_folder) / self.configuration_manager.data_identifier
        return self.synthesis.dataset(roles), PreprocessedDataset(str(folder), list(roles.validation))

    def perform_actual_validation(self, save_probabilities: bool = False):
        with self._validation_cases():
            super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            mark_summary(Path(self.output_folder) / "validation" / "summary.json")
            self.print_to_log_file(VALIDATION_NOTE)
        self.write_page()

    @contextmanager
    def _validation_cases(self):
        """nnU-Net's validation reads cases and true labels from these two folders."""
        stock = self.preprocessed_dataset_folder_base, self.preprocessed_dataset_folder
        base = validation_folder(self.synthesis.dataset_folder)
        self.preprocessed_dataset_folder_base = str(base)
        self.preprocessed_dataset_folder = str(base / self.configuration_manager.data_identifier)
        try:
            yield
        finally:
            self.preprocessed_dataset_folder_base, self.preprocessed_dataset_folder = stock


class nnUNetTrainerDiffTumorLabelFree(SyntheticTumorsOnly, nnUNetTrainer):
    """Trains on healthy cases with synthetic tumors, and on healthy cases as they are; real tumor cases are not used.

    When to use: no annotated tumors, healthy CT scans with organ masks.
    Limits: validation says how well synthetic tumors are found, not real ones: it runs on held-out healthy cases with
    synthetic tumors that `difftumor prepare` made once (with one healthy case: other tumors in that case).
    """


class nnUNetTrainerDiffTumorLabelFree_5epochs(nnUNetTrainerDiffTumorLabelFree):
    """nnUNetTrainerDiffTumorLabelFree for 5 epochs, to see whether a setup works."""

    epochs = 5


class nnUNetTrainerDiffTumorLabelFree_50epochs(nnUNetTrainerDiffTumorLabelFree):
    """nnUNetTrainerDiffTumorLabelFree for 50 epochs."""

    epochs = 50


class nnUNetTrainerDiffTumorLabelFree_250epochs(nnUNetTrainerDiffTumorLabelFree):
    """nnUNetTrainerDiffTumorLabelFree for 250 epochs, for comparisons."""

    epochs = 250
