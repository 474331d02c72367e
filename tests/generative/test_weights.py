"""Safetensors with their JSON: round trips, and every kind of mix-up."""

import json
import os
import resource
from dataclasses import asdict, dataclass

import pytest
import seeded
import torch
from safetensors.torch import load_file, save_file

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks import architectures
from nnunet_difftumor.generative.weights import (
    Description,
    DiffusionSettings,
    codebook_sha256,
    file_sha256,
    load_autoencoder,
    load_diffusion,
    read_description,
    save_weights,
)

VOLUMES = {"window_hu": [-175, 250], "spacing_mm": [1, 1, 1], "axes": "SRA"}
DIFFUSION = {
    "organ": "liver",
    "stage": "early",
    "steps": 4,
    "sampler": "ddpm",
    "sampler_steps": 4,
    "codebook_sha256": "0" * 64,
    "patch_size": [96, 96, 96],
}


@pytest.fixture
def saved(tmp_path):
    first, second = seeded.autoencoder(), seeded.unet()
    save_weights(
        tmp_path / "autoencoder.safetensors",
        first,
        description=Description("autoencoder", asdict(first.config), codebook_range=(-1.0, 1.5), source={"x": 1}),
    )
    settings = DiffusionSettings("liver", "early", 4, "ddpm", 4, codebook_sha256(first.codebook.embeddings))
    save_weights(
        tmp_path / "liver_early.safetensors",
        second,
        description=Description("diffusion", asdict(second.config), diffusion=settings),
    )
    return tmp_path


def load(folder):
    return load_diffusion(folder / "liver_early.safetensors", autoencoder=folder / "autoencoder.safetensors")


def change_json(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_models_come_back_exactly(saved):
    model, description = load(saved)
    expected = seeded.model(4)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert not model.training
    assert description.diffusion.organ == "liver"
    assert description.volumes.window_hu == (-175.0, 250.0)
    assert read_description(saved / "autoencoder.safetensors").source == {"x": 1}


def test_an_autoencoder_is_no_diffusion_model(saved):
    with pytest.raises(InputError, match="of the kind autoencoder, expected diffusion"):
        load_diffusion(saved / "autoencoder.safetensors", autoencoder=saved / "autoencoder.safetensors")
    with pytest.raises(InputError, match="of the kind diffusion, expected autoencoder"):
        load_autoencoder(saved / "liver_early.safetensors")


def test_the_wrong_autoencoder_is_refused(saved):
    other = seeded.autoencoder()
    other.codebook.embeddings[0, 0] += 1
    description = read_description(saved / "autoencoder.safetensors")
    save_weights(saved / "autoencoder.safetensors", other, description=description)
    with pytest.raises(InputError, match="trained with another autoencoder"):
        load(saved)


def test_other_intensities_than_the_autoencoders_are_refused(saved):
    change_json(saved / "liver_early.json", volumes={"window_hu": [-200, 300], "spacing_mm": [1, 1, 1], "axes": "SRA"})
    with pytest.raises(InputError, match="made for"):
        load(saved)


def test_tensors_of_another_file_are_noticed(saved):
    (saved / "liver_early.safetensors").write_bytes((saved / "autoencoder.safetensors").read_bytes())
    with pytest.raises(InputError, match="hashes differ"):
        load(saved)


def test_missing_files_are_named(saved):
    (saved / "liver_early.safetensors").unlink()
    with pytest.raises(InputError, match=r"liver_early\.safetensors: no such file"):
        load(saved)
    (saved / "autoencoder.json").unlink()
    with pytest.raises(InputError, match=r"autoencoder\.json: no such file"):
        load(saved)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"architecture": {"channels": 16}}, "of wrong shape"),
        ({"architecture": {"colour": 1}}, "architecture"),
        ({"architecture": {"channels": 9}}, "channels"),
        ({"diffusion": None}, "kind"),
        ({"diffusion": {"organ": "liver"}}, "not the description"),
        ({"architecture": {"channels": 2**40}}, "channels is 1099511627776, expected whole numbers from 1 to 1024"),
        ({"architecture": {"multipliers": [1] * 9}}, "multipliers is .*, expected whole numbers from 1 to 64"),
        ({"architecture": {"multipliers": "1248"}}, "multipliers is .*, expected whole numbers from 1 to 64"),
        ({"architecture": {"heads": True}}, "heads is True, expected"),
        ({"architecture": [1]}, "architecture is .*, expected an object"),
        ({"sha256": "0" * 63}, "sha256 is .*, expected a SHA-256"),
        ({"codebook_range": [1, 0]}, "codebook_range is .*, expected null, or two numbers, the lower first"),
        ({"volumes": VOLUMES | {"window_hu": [250, -175]}}, "volumes: window_hu is .*, expected two numbers"),
        ({"volumes": VOLUMES | {"window_hu": [None, 250]}}, "volumes: window_hu is .*, expected two numbers"),
        ({"volumes": VOLUMES | {"spacing_mm": [1, 1, 0]}}, "volumes: spacing_mm is .*, expected three from 0.01"),
        ({"volumes": VOLUMES | {"axes": "SSA"}}, "volumes: axes is .*, expected three letters"),
        (
            {"diffusion": DIFFUSION | {"steps": 10**9}},
            "diffusion: steps is .*, expected a whole number from 1 to 10000",
        ),
        ({"diffusion": DIFFUSION | {"steps": True}}, "diffusion: steps is .*, expected"),
        ({"diffusion": DIFFUSION | {"sampler": "euler"}}, "diffusion: sampler is .*, expected one of ddpm, ddim"),
        ({"diffusion": DIFFUSION | {"sampler": ["ddpm"]}}, "diffusion: sampler is .*, expected one of"),
        (
            {"diffusion": DIFFUSION | {"sampler_steps": 3}},
            "sampler_steps is 3, expected a whole number that divides the 4",
        ),
        ({"diffusion": DIFFUSION | {"patch_size": [96, 96, 10**6]}}, "patch_size is .*, expected three whole numbers"),
        ({"diffusion": DIFFUSION | {"organ": "../liver"}}, "organ is .*, expected a plain name"),
        ({"surprise": 1}, "unknown keys"),
        ({"network": "gan"}, r"liver_early\.json: network is 'gan', expected one of difftumor_unet"),
        ({"network": ["difftumor_unet"]}, "network is .*expected null or text"),
    ],
)
def test_a_wrong_description_is_explained(saved, changed, message):
    change_json(saved / "liver_early.json", **changed)
    with pytest.raises(InputError, match=message):
        load(saved)


def test_a_description_that_is_no_file_or_has_no_end_is_explained(saved):
    page = saved / "liver_early.json"
    page.write_text("[" * 100_000)
    with pytest.raises(InputError, match="not the description of weights"):
        load(saved)
    page.unlink()
    os.mkfifo(page)
    with pytest.raises(InputError, match=r"not the description of weights .no regular file"):
        load(saved)


def test_sizes_that_the_tensors_do_not_have_take_no_memory(saved):
    """A network of these sizes has 200 GB."""
    change_json(saved / "liver_early.json", architecture={"channels": 1024, "multipliers": [1, 16, 32, 64]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="of wrong shape"):
        load(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # kB


def test_tensors_of_another_type_are_refused(saved):
    path = saved / "liver_early.safetensors"
    save_file({name: tensor.double() for name, tensor in load_file(path).items()}, path)
    change_json(path.with_suffix(".json"), sha256=file_sha256(path))
    with pytest.raises(InputError, match=r"tensors of other types than were saved: .* is F64"):
        load(saved)


def test_the_architecture_is_stored_by_name_and_files_without_one_are_of_the_published(saved):
    for file, name in (("autoencoder.json", "difftumor_vqgan"), ("liver_early.json", "difftumor_unet")):
        content = json.loads((saved / file).read_text())
        assert content.pop("network") == name
        (saved / file).write_text(json.dumps(content))
    model, _ = load(saved)
    assert torch.equal(model.unet.conv_first.weight, seeded.unet().conv_first.weight)


def test_another_architecture_stands_beside_the_published_ones(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class FlatConfig:
        latent_channels: int = 8
        condition_channels: int = 9
        downsampling: tuple[int, int, int] = (2, 1, 1)

    class Flat(torch.nn.Conv3d):
        def __init__(self, config):
            super().__init__(config.latent_channels + config.condition_channels, config.latent_channels, 1)
            self.config = config

    network, first = Flat(FlatConfig()), seeded.autoencoder()
    settings = DiffusionSettings("liver", "late", 4, "ddpm", 4, codebook_sha256(first.codebook.embeddings))
    description = Description("diffusion", {"latent_channels": 8}, diffusion=settings)
    path = tmp_path / "liver_late.safetensors"
    with pytest.raises(InputError, match="Flat: not listed"):
        save_weights(path, network, description=description)
    monkeypatch.setitem(architectures.DENOISERS, "flat", architectures.Architecture(FlatConfig, Flat))
    save_weights(path, network, description=description)
    save_weights(
        tmp_path / "autoencoder.safetensors", first, description=Description("autoencoder", asdict(first.config))
    )
    model, found = load_diffusion(path, autoencoder=tmp_path / "autoencoder.safetensors")
    assert found.network == "flat"
    assert torch.equal(model.unet.weight, network.weight)
    assert model.patch_multiples() == (8, 4, 4)


def test_nan_is_neither_saved_nor_loaded(saved):
    broken = seeded.autoencoder()
    broken.decoder.conv_last.bias.data.fill_(torch.nan)
    description = read_description(saved / "autoencoder.safetensors")
    with pytest.raises(InputError, match=r"NaN or infinity in decoder\.conv_last\.bias"):
        save_weights(saved / "broken.safetensors", broken, description=description)
    assert not (saved / "broken.safetensors").exists()
