"""A trainer for `nnUNetv2_train -tr`, found through nnUNet_extTrainer: small, with a server of stand-ins."""

from nnunet_difftumor.pipeline.live import keeper, synthesis
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorTiny


class nnUNetTrainerDiffTumorFaults(nnUNetTrainerDiffTumorTiny):
    """Eight short epochs, a checkpoint after each, and no validation at the end, which has no server."""

    def initialize(self):
        synthesis.FACTORY = "stand_in_renderer:make"
        synthesis.hang_s = lambda settings: 2.0
        keeper._RESTARTS = 2
        self.num_epochs, self.num_iterations_per_epoch, self.save_every = 8, 8, 1
        super().initialize()

    def perform_actual_validation(self, save_probabilities: bool = False):
        self.print_to_log_file("No validation in this trainer.")
