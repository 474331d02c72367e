"""Discriminators judge patches of any size."""

import pytest
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.discriminators import PatchDiscriminator


@pytest.mark.parametrize(("dimensions", "size"), [(2, (33, 16)), (2, (1, 1)), (3, (8, 9, 16)), (3, (1, 2, 1))])
def test_any_size_gives_a_map_of_logits_and_features_that_learn(dimensions, size):
    model = PatchDiscriminator(dimensions, hidden_channels=4)
    # More than one value per channel, which batch norm needs in training.
    volume = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    judgement = model(volume)
    assert judgement.logits.shape[:2] == (2, 1)
    assert [feature.shape[1] for feature in judgement.features] == [4, 8, 16, 32]
    (judgement.logits.mean() + sum(feature.abs().mean() for feature in judgement.features)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_slice_is_not_a_volume():
    with pytest.raises(InputError, match="3 axes of space"):
        PatchDiscriminator(3)(torch.zeros(1, 1, 8, 8))
