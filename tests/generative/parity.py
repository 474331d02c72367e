"""Recorded numbers of the public DiffTumor code, from the folder that DIFFTUMOR_PARITY names."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_difftumor.generative.importing.published_weights import fill_autoencoder, fill_unet
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig

# Twice float64 against float32 of the public code is 3e-6; the smallest realistic mistake is 2e-5.
TOLERANCE = 1e-5


def folder() -> Path:
    named = os.environ.get("DIFFTUMOR_PARITY")
    if not named or not Path(named).is_dir():
        pytest.skip("DIFFTUMOR_PARITY names no folder with recorded numbers of the public code")
    return Path(named)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(folder() / f"{name}.npz") as file:
        return dict(file)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def state(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("state/"): tensor(value) for name, value in arrays.items() if name.startswith("state/")}


def autoencoder(name: str, **config) -> Autoencoder:
    model = Autoencoder(AutoencoderConfig(**config))
    tensors = state(load(name))
    # The fixtures leave out what only training needs.
    tensors.setdefault("codebook.N", torch.zeros(model.config.codes))
    tensors.setdefault("codebook.z_avg", torch.zeros_like(model.codebook.sums))
    fill_autoencoder(model, tensors, where=Path(name))
    return model.eval()


def unet(channels: int) -> UNet:
    model = UNet(UNetConfig(channels=channels))
    fill_unet(model, state(load(f"unet_dim{channels}_state")), where=Path("fixture"))
    return model.eval()


def assert_close(found: torch.Tensor, expected: np.ndarray, what: str = "", *, tolerance: float = TOLERANCE) -> None:
    """Relative L2 distance of at most the tolerance."""
    expected = tensor(expected).double()
    assert found.shape == expected.shape, what
    distance = ((found.detach().double() - expected).norm() / expected.norm()).item()
    assert distance <= tolerance, f"{what}: relative L2 distance {distance:.2e}"


def assert_gradients(model: torch.nn.Module, published: dict[str, str], arrays: dict[str, np.ndarray]) -> int:
    """Norm, product with linspace(-1, 1), and where recorded the whole gradient, of every parameter."""
    names = [name.removeprefix("out/gradnorm/") for name in arrays if name.startswith("out/gradnorm/")]
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert {published[name] for name in names} == set(own)
    # Some are nothing but rounding: a bias before a norm of one channel per group has no gradient.
    rounding = 1e-6 * max(arrays[f"out/gradnorm/{name}"].item() for name in names)
    compared = 0
    for name in names:
        gradient = own[published[name]].double().flatten()
        norm = arrays[f"out/gradnorm/{name}"].item()
        if norm <= rounding:
            assert gradient.norm() <= 10 * rounding, name
            continue
        compared += 1
        ramp = torch.linspace(-1, 1, len(gradient), dtype=torch.float64)
        assert abs(gradient.norm() - norm) <= TOLERANCE * norm, name
        # The product of two vectors is as exact as their norms allow.
        assert abs(gradient @ ramp - arrays[f"out/graddot/{name}"].item()) <= TOLERANCE * norm * ramp.norm(), name
        if f"out/grad/{name}" in arrays:
            assert_close(gradient, arrays[f"out/grad/{name}"].ravel(), name)
    return compared


def assert_same_gradients(single: torch.nn.Module, exact: torch.nn.Module) -> None:
    """Gradients in float32 against those in float64.

    Sums whose terms cancel, as a bias before a norm has, are as exact as the terms: hence the part of the largest.
    """
    largest = max(parameter.grad.norm().item() for parameter in exact.parameters())
    own = dict(single.named_parameters())
    for name, parameter in exact.named_parameters():
        distance = (own[name].grad.double() - parameter.grad).norm().item()
        assert distance <= TOLERANCE * parameter.grad.norm().item() + 1e-6 * largest, name
