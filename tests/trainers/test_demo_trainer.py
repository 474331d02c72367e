"""The demo's trainer: its first weights come from the seed in its plans, and from nothing else."""

import shutil

import pytest
import torch
from trainer_of import trainer_of

from nnunet_difftumor.demonstration.small_plan import write_small_plans
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.trainers.demo import nnUNetTrainerDiffTumorDemo


def make(dataset, plans_path) -> nnUNetTrainerDiffTumorDemo:
    return trainer_of(dataset.preprocessed, nnUNetTrainerDiffTumorDemo, plans_file=plans_path, initialize=False)


def small_plans(dataset, folder, *, seed: int):
    folder.mkdir()
    shutil.copy(dataset.preprocessed / "nnUNetPlansDiffTumor.json", folder)
    return write_small_plans(folder, epochs=3, iterations_per_epoch=20, seed=seed)


def weights(trainer) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(trainer.network.parameters()).detach()


def test_first_weights_are_a_function_of_the_seed_and_global_generators_stay_as_they_were(prepared_phantom, tmp_path):
    first = []
    for number, seed in enumerate((0, 0, 1)):
        trainer = make(prepared_phantom, small_plans(prepared_phantom, tmp_path / str(number), seed=seed))
        torch.manual_seed(number)
        before = torch.get_rng_state()
        trainer.initialize()
        assert torch.equal(torch.get_rng_state(), before)
        first.append(weights(trainer))
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_length_and_loss_are_those_of_the_small_plans(prepared_phantom, tmp_path):
    trainer = make(prepared_phantom, small_plans(prepared_phantom, tmp_path / "plans", seed=0))
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (3, 20)
    assert trainer.loss.loss.dc.batch_dice


def test_other_plans_are_refused(prepared_phantom):
    with pytest.raises(InputError, match="not those of `difftumor demo`"):
        make(prepared_phantom, prepared_phantom.preprocessed / "nnUNetPlansDiffTumor.json")
