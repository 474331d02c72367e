"""Whole tumors, and the authors' file formats, against the public code."""

import shutil

import numpy as np
import parity
import pytest
import torch
from published_diffusion import synthesize_as_published

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import sample_ddim, sample_ddpm
from nnunet_difftumor.generative.weights import load_diffusion

BLUR = {"liver": 1.7, "kidney": 3.1, "pancreas": 0.0}


@pytest.fixture(autouse=True, params=[False, True], ids=["as in training", "without gradients"])
def path(request):
    """Both ways to compute on a CPU: module by module, and in the slabs and blocks that inference takes."""
    with torch.inference_mode(request.param):
        yield


@pytest.fixture(scope="module")
def arrays():
    return parity.load("e2e_small")


def model(steps: int) -> LatentDiffusion:
    return LatentDiffusion(parity.autoencoder("vqgan_small", codes=512), parity.unet(24), steps=steps).eval()


def ddpm(arrays):
    noise = iter(parity.tensor(arrays["in/noises_T4"])).__next__
    return lambda denoise: sample_ddpm(denoise, model(4).schedule, noise)


@torch.no_grad()
def test_condition_latent_codes_and_volume(arrays):
    early = model(4)
    order = (0, 1, 4, 2, 3)
    volume = parity.tensor(2 * arrays["in/ct"] - 1).permute(order)
    condition = early.condition(volume, parity.tensor(arrays["in/tumor"]).permute(order))
    parity.assert_close(condition, arrays["mid/cond"], "condition")
    latent = ddpm(arrays)(early.denoise(condition))
    parity.assert_close(latent, arrays["mid/latent"], "latent")
    unscaled = (latent + 1) / 2 * early.code_range + early.code_min
    indices = early.autoencoder.codebook(unscaled).indices
    assert torch.equal(indices.int(), parity.tensor(arrays["mid/indices"]))
    parity.assert_close(early.decode_scaled(latent), arrays["mid/decoded"], "decoded")


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas"])
def test_early_tumors(arrays, organ):
    made = synthesize_as_published(
        model(4),
        arrays["in/ct"],
        organ_mask=arrays["in/organ"],
        tumor_mask=arrays["in/tumor"],
        organ=organ,
        sample=ddpm(arrays),
        blur_voxels=BLUR[organ],
    )
    parity.assert_close(torch.from_numpy(made.volume), arrays[f"out/early_{organ}/volume"])
    assert np.array_equal(made.label, arrays[f"out/early_{organ}/label"])


def test_a_medium_tumor(arrays):
    late, start = model(200), parity.tensor(arrays["in/xT_ddim"])
    made = synthesize_as_published(
        late,
        arrays["in/ct"][:1],
        organ_mask=arrays["in/organ"][:1],
        tumor_mask=arrays["in/tumor"][:1],
        organ="liver",
        sample=lambda denoise: sample_ddim(denoise, late.schedule, lambda: start, steps=4),
        blur_voxels=2.3,
    )
    parity.assert_close(torch.from_numpy(made.volume), arrays["out/medium_liver_S4/volume"])
    assert np.array_equal(made.label, arrays["out/medium_liver_S4/label"])


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    output = tmp_path_factory.mktemp("weights")
    names = ("AutoencoderModel.ckpt", "liver_early.pt", "liver_noearly.pt")
    files = [parity.folder() / f"small_{name}" for name in names]
    assert main(["import-weights", *map(str, files), "-o", str(output)]) == 0
    return output


@torch.no_grad()
def test_imported_files_sample_to_the_recorded_volume(imported):
    arrays = parity.load("small_ckpt_expected")
    early, description = load_diffusion(
        imported / "liver_early.safetensors", autoencoder=imported / "autoencoder.safetensors"
    )
    assert (description.diffusion.steps, description.diffusion.sampler) == (4, "ddpm")
    noise = iter(parity.tensor(arrays["in/noises"])).__next__
    latent = sample_ddpm(early.denoise(parity.tensor(arrays["in/cond"])), early.schedule, noise)
    parity.assert_close(latent, arrays["out/latent_ema"])
    parity.assert_close(early.decode_scaled(latent), arrays["out/sample_ema"])


def test_late_models_are_recognized_by_their_steps(imported):
    _, description = load_diffusion(
        imported / "liver_late.safetensors", autoencoder=imported / "autoencoder.safetensors"
    )
    settings = description.diffusion
    assert (settings.stage, settings.steps, settings.sampler, settings.sampler_steps) == ("late", 200, "ddim", 50)


@pytest.mark.parametrize("name", ["small_AutoencoderModel.ckpt", "small_liver_early.pt"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path, name, share):
    from nnunet_difftumor.generative.importing.published_weights import import_weights

    whole = (parity.folder() / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="truncated"):
        import_weights([tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_diffusion_model_of_another_autoencoder_is_refused(imported, tmp_path):
    from nnunet_difftumor.generative.importing.published_weights import import_weights
    from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
    from nnunet_difftumor.generative.weights import load_autoencoder, save_weights

    for suffix in (".safetensors", ".json"):
        shutil.copy(imported / f"autoencoder{suffix}", tmp_path)
    other, description = load_autoencoder(tmp_path / "autoencoder.safetensors")
    assert isinstance(other, Autoencoder)
    other.codebook.embeddings[3, 1] += 1e-3
    save_weights(tmp_path / "autoencoder.safetensors", other, description=description)
    with pytest.raises(InputError, match="another autoencoder"):
        import_weights([parity.folder() / "small_liver_early.pt"], tmp_path)
    with pytest.raises(InputError, match="another autoencoder"):
        load_diffusion(imported / "liver_early.safetensors", autoencoder=tmp_path / "autoencoder.safetensors")
