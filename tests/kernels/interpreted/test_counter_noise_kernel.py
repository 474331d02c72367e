"""The kernel's noise against that of the plain version."""

import pytest
import torch

from nnunet_difftumor.kernels import standard_normal
from nnunet_difftumor.kernels.implementation import implementation


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 1023, 1024, 1025, 4099])
@pytest.mark.parametrize("stream", [0, 5, 2**31, 2**32 - 1])
def test_the_kernel_makes_the_references_numbers(count, stream):
    seeds = torch.tensor([0, 1, -1, 2**62 + 12345, -(2**63)])
    found = standard_normal(seeds, count, stream=stream)
    with implementation("reference"):
        expected = standard_normal(seeds, count, stream=stream)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_seeds_may_be_stored_in_any_way():
    seeds = torch.arange(12)[::3]
    assert torch.equal(standard_normal(seeds, 9, stream=1), standard_normal(seeds.contiguous(), 9, stream=1))
