"""All that makes a trainer ours, to be mixed into any of nnU-Net's."""

from pathlib import Path

import torch

from nnunet_difftumor.checks.gate import check_before
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.injection import synthetic_training_loader
from nnunet_difftumor.pipeline.seeding import seeded_generators
from nnunet_difftumor.pipeline.spatial import with_quick_spatial_transform
from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.config import FILE_NAME
from nnunet_difftumor.prepared.nnunet.preprocessed_dataset import PreprocessedDataset
from nnunet_difftumor.prepared.nnunet.training_length import TrainingLength
from nnunet_difftumor.prepared.roles import Roles, roles_with_real_cases
from nnunet_difftumor.runs.page import write_page
from nnunet_difftumor.runs.progress import draw_progress
from nnunet_difftumor.runs.recorder import SynthesisRecorder
from nnunet_difftumor.runs.run_record import write_run
from nnunet_difftumor.runs.synthesis_log import LOG_FOLDER

# Beside the numbers of batches among what the run's seed makes random; ranks come first there, and there are fewer.
_FIRST_WEIGHTS = 2**31


class SyntheticTumors:
    """Puts synthetic tumors into the training batches of the trainer that it is mixed into, before it in the bases.

    What it takes over: the training cases and their loader, whose order is reproducible; the random numbers of the
    network's first weights; mirroring, along the `mirror_axes` of difftumor.json; log, pictures and the synthesis
    server. Loss, optimizer, schedule, transforms,
    network and validation are those of the trainer.

    Attributes:
        mirrors_as_trainer: whether mirroring is the trainer's where `mirror_axes` names no axis, instead of off.
        epochs: instead of the trainer's; None: the trainer's. Plans that say how long to train (`TrainingLength`)
            come before both.
        synthesis: of the run; made by `initialize` from the dataset's difftumor.json, unless it is set before.
        recorder: of the run, from the start of the training on.
    """

    mirrors_as_trainer = False
    epochs: int | None = None
    synthesis: TrainingSynthesis | None = None
    recorder: SynthesisRecorder | None = None

    # The signature is nnU-Net's, which looks up every parameter by its name.
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.epochs is not None:
            self.num_epochs = self.epochs
        if (length := TrainingLength.of(plans)) is not None:
            self.num_epochs, self.num_iterations_per_epoch = length.epochs, length.iterations_per_epoch
            # As many to validate as nnU-Net has of its 250.
            self.num_val_iterations_per_epoch = max(1, length.iterations_per_epoch // 5)

    def initialize(self):
        if self.synthesis is None:
            self.synthesis = TrainingSynthesis(
                self.preprocessed_dataset_folder_base,
                self.plans_manager.plans,
                dataset_json=self.dataset_json,
                configuration=self.configuration_name,
                fold=self.fold,
            )
        # Trainings that are compared begin with the same network: its first weights come from the run's seed, too.
        with seeded_generators((*self.synthesis.run_seed, _FIRST_WEIGHTS)):
            super().initialize()
        self.dataset_class = PreprocessedDataset

    def roles(self) -> Roles:
        """Who trains, who validates, who gets tumors."""
        real_as_bases = self.synthesis.config.real_cases_as_bases
        roles = roles_with_real_cases(self.synthesis.splits(), self.fold, real_as_bases=real_as_bases)
        return self.synthesis.with_usable_bases(roles)

    def do_split(self):
        roles = self.roles()
        return list(roles.train), list(roles.validation)

    def get_tr_and_val_datasets(self):
        _, validation = super().get_tr_and_val_datasets()
        return self.synthesis.dataset(self.roles()), validation

    def get_dataloaders(self):
        roles = self.roles()
        for line in self.synthesis.describe(roles):
            self.print_to_log_file(line)
        # nnU-Net throws away the first batch that its loaders make: batch k + 1 is the one of iteration k.
        first = self.current_epoch * self.num_iterations_per_epoch
        plan = self.synthesis.plan(
            roles, rank=self.local_rank, first_batch=first, batches_per_epoch=self.num_iterations_per_epoch
        )
        with synthetic_training_loader(plan) as made:
            loaders = super().get_dataloaders()
        if not made:
            raise InputError(
                f"trainer {type(self).__name__}: the get_dataloaders of what it is made of does not make its batches "
                "by nnU-Net's, so that no tumor would ever be in them; take a trainer without it"
            )
        return loaders

    def get_training_transforms(self, *args, **kwargs):
        # nnU-Net's is static and does not know the labels; it calls it of the instance.
        transforms = super().get_training_transforms(*args, **kwargs)
        return with_quick_spatial_transform(transforms, self.synthesis.tumor_labels)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802 (nnU-Net's name)
        theirs = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.mirrors_as_trainer and not self.synthesis.config.mirror_axes:
            return theirs
        rotation, dummy_2d, initial_patch_size, _ = theirs
        roles = self.roles()
        axes = self.synthesis.mirror_axes([*roles.train, *roles.bases]) or None
        self.inference_allowed_mirroring_axes = axes
        return rotation, dummy_2d, initial_patch_size, axes

    def run_training(self):
        try:
            super().run_training()
        finally:
            if self.synthesis is not None:
                self.synthesis.end()

    def on_train_start(self):
        if not self.was_initialized:
            self.initialize()
        # Made here: mistakes in its settings are named by their key, before anything is said of the data.
        live = self.synthesis.live
        check_before(
            "the training",
            self.synthesis.dataset_folder,
            plans=self.plans_manager.plans,
            configuration=self.configuration_name,
            config=self.synthesis.config,
            more=lambda: self.synthesis.what_draws(self.roles),
            report=self.print_to_log_file,
        )
        if live is not None:
            # Before the workers, which ask it from their first batch on.
            live.start(
                device=self.device.type,
                gpu=self.device.index or 0,
                folder=Path(self.output_folder) / LOG_FOLDER,
                rank=self.local_rank,
            )
            self.print_to_log_file(f"The synthesis server draws {live.drawn_as}")
        super().on_train_start()
        self.recorder = SynthesisRecorder.of(
            self.synthesis,
            self.output_folder,
            rank=self.local_rank,
            roles=self.roles(),
            batches_per_epoch=self.num_iterations_per_epoch,
        )
        write_run(self.output_folder, rank=self.local_rank, trainer=self)
        if self.local_rank == 0:
            self.synthesis.config.save(f"{self.output_folder}/{FILE_NAME}")

    def train_step(self, batch: dict) -> dict:
        self.recorder.add(batch, epoch=self.current_epoch)
        return super().train_step(batch)

    def on_train_epoch_end(self, train_outputs: list[dict]):
        super().on_train_epoch_end(train_outputs)
        live = self.synthesis.live
        server = live.keeper.status() if live is not None else None
        for line in self.recorder.finish_epoch(self.current_epoch, server=server):
            self.print_to_log_file(line)
        if self.local_rank == 0 and (problem := draw_progress(self.output_folder)) is not None:
            self.print_to_log_file(problem)

    def on_train_end(self):
        super().on_train_end()
        self.write_page()

    def perform_actual_validation(self, save_probabilities: bool = False):
        super().perform_actual_validation(save_probabilities)
        self.write_page()

    def write_page(self) -> None:
        """`report.html` of the run, as it is now."""
        if self.local_rank == 0 and (problem := write_page(self.output_folder)) is not None:
            self.print_to_log_file(problem)
