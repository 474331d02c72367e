"""Sizes, gradients and errors of the U-Net; its values are in test_seeded and test_parity_unet."""

import pytest
import seeded
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.attention import RelativePositionBias
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def arguments(batch: int, size: tuple[int, ...]):
    steps = torch.arange(batch) % 4
    return draw(batch, 8, *size), steps, draw(batch, 9, *size, seed=1)


@pytest.mark.parametrize(("batch", "size"), [(1, (1, 8, 8)), (3, (5, 8, 16)), (2, (40, 8, 8))])
@torch.no_grad()
def test_any_depth_and_batch_is_possible(batch, size):
    noisy, steps, condition = arguments(batch, size)
    model = seeded.unet()
    found = model(noisy, steps, condition=condition)
    assert found.shape == noisy.shape
    for i in range(batch):
        alone = model(noisy[i : i + 1], steps[i : i + 1], condition=condition[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns():
    model = seeded.unet()
    noisy, steps, condition = arguments(2, (4, 16, 8))
    model(noisy, steps, condition=condition).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


@torch.no_grad()
def test_bfloat16_stays_close():
    model = seeded.unet()
    noisy, steps, condition = arguments(1, (8, 8, 8))
    exact = model(noisy, steps, condition=condition)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(noisy, steps, condition=condition)
    assert ((half - exact).norm() / exact.norm()).item() < 3e-2


def test_other_numbers_of_levels_and_heads_work():
    config = UNetConfig(channels=4, multipliers=(1, 2), heads=2, head_dim=6, norm_groups=2, latent_channels=3)
    noisy, steps, condition = draw(1, 3, 2, 6, 4), torch.tensor([0]), draw(1, 9, 2, 6, 4)
    assert UNet(config)(noisy, steps, condition=condition).shape == noisy.shape


def test_the_order_of_slices_matters():
    """Without rotation and position bias, attention would not see it."""
    model = seeded.unet()
    noisy, steps, condition = arguments(1, (6, 8, 8))
    with torch.no_grad():
        flipped = model(noisy.flip(2), steps, condition=condition.flip(2)).flip(2)
        assert (model(noisy, steps, condition=condition) - flipped).abs().max() > 1e-2


def test_distances_share_buckets_from_eight_on():
    first = RelativePositionBias(1).buckets(41)[:, 0].tolist()
    assert first[:20] == [*range(8), 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 12]
    assert set(first[28:]) == {15}
    assert RelativePositionBias(1).buckets(9)[0].tolist() == [0, *range(17, 24), 24]


@pytest.mark.parametrize(
    ("noisy", "condition", "steps", "message"),
    [
        ((1, 8, 4, 12, 8), (1, 9, 4, 12, 8), (1,), r"patch size \(4, 12, 8\).*multiple of \(1, 8, 8\)"),
        ((1, 7, 4, 8, 8), (1, 9, 4, 8, 8), (1,), r"noisy latent: expected \(b, 8, d, h, w\)"),
        ((1, 8, 4, 8, 8), (1, 9, 5, 8, 8), (1,), r"condition: expected"),
        ((2, 8, 4, 8, 8), (1, 9, 4, 8, 8), (2,), r"batch: 2 latents"),
        ((2, 8, 4, 8, 8), (2, 9, 4, 8, 8), (1,), r"batch: 2 latents"),
        ((0, 8, 4, 8, 8), (0, 9, 4, 8, 8), (0,), r"noisy latent: expected"),
    ],
)
def test_impossible_latents_are_explained(noisy, condition, steps, message):
    model = UNet(UNetConfig(channels=8))
    with pytest.raises(InputError, match=message):
        model(torch.zeros(noisy), torch.zeros(steps, dtype=torch.int64), condition=torch.zeros(condition))


@pytest.mark.parametrize("changed", [{"channels": 12}, {"head_dim": 3}, {"multipliers": ()}, {"heads": 0}])
def test_impossible_architectures_are_explained(changed):
    with pytest.raises(InputError):
        UNetConfig(**changed)
