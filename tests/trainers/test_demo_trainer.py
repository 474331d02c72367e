"""The demo's trainer: as long as its plans say."""

import shutil

import pytest
from trainer_of import trainer_of

from nnunet_difftumor.demonstration.small_plan import write_small_plans
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.trainers.demo import nnUNetTrainerDiffTumorDemo


def make(dataset, plans_path) -> nnUNetTrainerDiffTumorDemo:
    return trainer_of(dataset.preprocessed, nnUNetTrainerDiffTumorDemo, plans_file=plans_path, initialize=False)


def small_plans(dataset, folder):
    folder.mkdir()
    shutil.copy(dataset.preprocessed / "nnUNetPlansDiffTumor.json", folder)
    return write_small_plans(folder, epochs=3, iterations_per_epoch=20)


def test_length_and_loss_are_those_of_the_small_plans(prepared_phantom, tmp_path):
    trainer = make(prepared_phantom, small_plans(prepared_phantom, tmp_path / "plans"))
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (3, 20)
    assert trainer.loss.loss.dc.batch_dice


def test_other_plans_are_refused(prepared_phantom):
    with pytest.raises(InputError, match="not those of `difftumor demo`"):
        make(prepared_phantom, prepared_phantom.preprocessed / "nnUNetPlansDiffTumor.json")
