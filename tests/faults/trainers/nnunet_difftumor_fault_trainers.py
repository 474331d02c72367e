"""A trainer for `nnUNetv2_train -tr`, found through nnUNet_extTrainer: small, with a server of stand-ins."""

import errno

from stand_in_renderer import asked

from nnunet_difftumor.pipeline.live import ring, server_keeper, synthesis
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorTiny


def _on_full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


class nnUNetTrainerDiffTumorFaults(nnUNetTrainerDiffTumorTiny):
    """Eight short epochs, a checkpoint after each, and no validation at the end, which has no server."""

    def initialize(self):
        synthesis.FACTORY = "stand_in_renderer:make"
        synthesis.hang_s = lambda settings: 2.0
        server_keeper._RESTARTS = 2
        if asked("full_disk"):
            ring.write_lesion = _on_full_disk
        self.num_epochs, self.num_iterations_per_epoch, self.save_every = 8, 8, 1
        super().initialize()

    def perform_actual_validation(self, save_probabilities: bool = False):
        self.print_to_log_file("No validation in this trainer.")
