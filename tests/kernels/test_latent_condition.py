"""What the diffusion model is told, against its definition block by block."""

import pytest
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import latent_condition

SCALARS = {"code_min": torch.tensor(-1.5), "code_range": torch.tensor(4.0)}


def draw(share: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(3, 2, 2, 3, 2, generator=generator)
    return latent, torch.rand(3, 1, 4, 3, 8, generator=generator) < share


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 1.0])
def test_the_latent_is_scaled_and_the_mask_follows(share):
    latent, mask = draw(share)
    condition = latent_condition(latent, mask, **SCALARS)
    torch.testing.assert_close(condition[:, :2], (latent + 1.5) / 2 - 1)
    for sample in range(3):
        blocks = mask[sample, 0].reshape(2, 2, 3, 1, 2, 4).permute(0, 2, 4, 1, 3, 5).flatten(3)
        first = blocks[..., 0]
        wanted = first if first.any() else blocks.any(-1)
        assert torch.equal(condition[sample, 2], 2.0 * wanted - 1)


def test_the_dtype_is_that_of_the_latent():
    latent, mask = draw(0.1)
    assert latent_condition(latent.double(), mask, **SCALARS).dtype == torch.float64
    assert latent_condition(latent.bfloat16(), mask, **SCALARS).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("latent", {"latent": torch.ones(1, 2, 2, 2)}),
        ("latent", {"latent": torch.ones(1, 2, 2, 2, 2, dtype=torch.int64)}),
        ("mask", {"mask": torch.ones(1, 1, 4, 4, 4)}),
        ("mask", {"mask": torch.ones(1, 1, 4, 4, 3, dtype=torch.bool)}),
        ("mask", {"mask": torch.ones(2, 1, 4, 4, 4, dtype=torch.bool)}),
        ("mask", {"mask": torch.ones(1, 1, 4, 4, 4, dtype=torch.bool, device="meta")}),
        ("mask", {"mask": torch.ones(1, 1, 0, 4, 4, dtype=torch.bool)}),
        ("code_min", {"code_min": torch.ones(1)}),
        ("code_range", {"code_range": torch.tensor(2)}),
    ],
)
def test_wrong_arguments_are_named(named, arguments):
    given = {"latent": torch.ones(1, 2, 2, 2, 2), "mask": torch.ones(1, 1, 4, 4, 4, dtype=torch.bool), **SCALARS}
    with pytest.raises(InputError, match=f"^{named}: "):
        latent_condition(**{**given, **arguments})
