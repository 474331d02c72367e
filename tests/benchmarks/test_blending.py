"""The blend of the benchmarks is the public code's, and can be a part of a graph."""

import importlib

import numpy as np
import pytest
import torch
from pages import REPOSITORY
from scipy.ndimage import gaussian_filter
from torch._subclasses import FakeTensorMode


@pytest.fixture(scope="module")
def blend():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "benchmarks")
        yield importlib.import_module("blending").blend


@pytest.mark.parametrize("sigma", [0.4, 1.7, 4.0])
def test_the_blend_is_that_of_a_gaussian_filter(blend, sigma):
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(2, 1, 16, 32, 64, generator=generator) * 2 - 1
    picture = volume.flip(2) * 1.5
    tumor = torch.zeros(volume.shape, dtype=torch.bool)
    tumor[0, 0, 5:12, 10:18, 20:30] = True
    tumor[1, 0, 2:9, 20:26, 40:47] = True
    found = blend(volume, picture, tumor, sigma_voxels=torch.tensor(sigma))
    weight = gaussian_filter(tumor.numpy().astype(np.float64), (0, 0, sigma, sigma, sigma))
    expected = volume.numpy() * (1 - weight) + picture.clamp(-1, 1).numpy() * weight
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_the_blend_does_not_wait_for_the_device(blend):
    """On tensors without memory: of those a value cannot be asked for at all."""
    with FakeTensorMode():
        volume, tumor = torch.empty(2, 1, 4, 8, 6), torch.empty(2, 1, 4, 8, 6, dtype=torch.bool)
        assert blend(volume, volume, tumor, sigma_voxels=torch.empty(())).shape == volume.shape
