"""nnU-Net's trainer with synthetic tumors in its training batches, and its variants with fewer epochs."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_difftumor.trainers.synthetic_tumors import SyntheticTumors


class nnUNetTrainerDiffTumor(SyntheticTumors, nnUNetTrainer):
    """Trains on real tumor cases, and on healthy cases with synthetic tumors.

    When to use: there are some annotated tumors, and healthy CT scans with organ masks. `difftumor prepare` first.
    Limits: one CT channel; 3D configurations that are not the second stage of a cascade.
    Differences to nnU-Net: training samples (`shares` of difftumor.json), their order is
    reproducible, and mirroring is off unless `mirror_axes` says otherwise. Validation is nnU-Net's own, on real cases.
    """


class nnUNetTrainerDiffTumor_5epochs(nnUNetTrainerDiffTumor):
    """nnUNetTrainerDiffTumor for 5 epochs, to see whether a setup works."""

    epochs = 5


class nnUNetTrainerDiffTumor_50epochs(nnUNetTrainerDiffTumor):
    """nnUNetTrainerDiffTumor for 50 epochs."""

    epochs = 50


class nnUNetTrainerDiffTumor_250epochs(nnUNetTrainerDiffTumor):
    """nnUNetTrainerDiffTumor for 250 epochs, for comparisons."""

    epochs = 250
