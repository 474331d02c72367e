"""Trainings that are compared begin with the same network: its first weights come from the run's seed."""

import json

import torch
from trainer_of import trainer_of


def test_first_weights_are_a_function_of_seed_and_fold_and_nothing_else(prepared_phantom, tmp_path):
    config = json.loads((prepared_phantom.preprocessed / "difftumor.json").read_text())

    def first_weights(number: int, *, fold: int = 0, **changed) -> torch.Tensor:
        settings = tmp_path / f"{number}.json"
        settings.write_text(json.dumps(config | changed))
        trainer = trainer_of(prepared_phantom.preprocessed, settings=settings, fold=fold, initialize=False)
        torch.manual_seed(number)
        before = torch.get_rng_state()
        trainer.initialize()
        assert torch.equal(torch.get_rng_state(), before), "global generators stay as they were"
        return torch.nn.utils.parameters_to_vector(trainer.network.parameters()).detach()

    first = first_weights(0)
    for number, changed in enumerate(
        ({}, {"preset": "placebo"}, {"shares": {"real": 1, "synthetic": 0, "healthy": 0}}), 1
    ):
        assert torch.equal(first, first_weights(number, **changed)), changed
    assert not torch.equal(first, first_weights(5, seed=1))
    assert not torch.equal(first, first_weights(6, fold=1))
