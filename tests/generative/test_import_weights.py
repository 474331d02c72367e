"""Importing files with the published layout, made here from small networks; the real ones: test_parity_end_to_end."""

import published_files
import pytest
import seeded
import torch

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.importing.published_weights import import_weights
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.weights import load_autoencoder, load_diffusion, read_description


@pytest.fixture
def files(tmp_path, monkeypatch):
    return (
        published_files.write_autoencoder(tmp_path / "AutoencoderModel.ckpt", seeded.autoencoder(), monkeypatch),
        published_files.write_diffusion(
            tmp_path / "liver_early.pt", seeded.unet(), autoencoder=seeded.autoencoder(), steps=4
        ),
    )


def test_the_command_imports_and_says_what_it_ignored(files, tmp_path, capsys):
    assert main(["import-weights", *map(str, files), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "ignored: slice discriminator, 32 values" in printed
    assert "ignored: perceptual network (LPIPS), 5 values" in printed
    assert "ignored: copy of the autoencoder" in printed
    assert "ignored: weights without moving average (model)" in printed
    assert "liver, early: 4 steps, sampled by ddpm in 4" in printed
    model, _ = load_diffusion(
        tmp_path / "out" / "liver_early.safetensors", autoencoder=tmp_path / "out" / "autoencoder.safetensors"
    )
    expected = seeded.model(4).state_dict()
    for name, tensor in model.state_dict().items():
        if name != "autoencoder.codebook.initialized":
            assert torch.equal(tensor, expected[name]), name
    assert model.autoencoder.codebook.initialized


def test_the_autoencoder_may_have_been_imported_before(files, tmp_path):
    import_weights(files[:1], tmp_path / "out")
    done = import_weights(files[1:], tmp_path / "out", organ="kidney", stage="late")
    assert [imported.path.name for imported in done] == ["kidney_late.safetensors"]


def test_an_organ_may_have_any_plain_name(files, tmp_path):
    import_weights(files[:1], tmp_path / "out")
    done = import_weights(files[1:], tmp_path / "out", organ="Nebenniere-links")
    assert [imported.path.name for imported in done] == ["Nebenniere-links_early.safetensors"]
    assert read_description(done[0].path).diffusion.organ == "Nebenniere-links"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"organ": "../spleen"}, "^organ is '../spleen', expected a plain name"),
        ({"organ": ""}, "^organ is '', expected a plain name"),
        ({"stage": "middle"}, "^stage is 'middle', expected one of early, late$"),
    ],
)
def test_names_that_lead_elsewhere_and_unknown_stages_are_refused(files, tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        import_weights(files, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_diffusion_model_alone_is_refused(files, tmp_path):
    with pytest.raises(InputError, match=r"give the autoencoder's \.ckpt too"):
        import_weights(files[1:], tmp_path / "out")


def test_settings_of_the_file_tell_what_tensors_cannot(tmp_path, monkeypatch):
    config = AutoencoderConfig(hidden_channels=4, codes=8, downsampling=(4, 2, 1), norm_groups=2)
    path = published_files.write_autoencoder(tmp_path / "a.ckpt", seeded.fill(Autoencoder(config), 5), monkeypatch)
    import_weights([path], tmp_path / "out")
    assert load_autoencoder(tmp_path / "out" / "autoencoder.safetensors")[0].config == config


def test_settings_that_contradict_the_tensors_are_refused(tmp_path, monkeypatch):
    path = published_files.write_autoencoder(
        tmp_path / "a.ckpt", seeded.autoencoder(), monkeypatch, hyper_parameters={"cfg": {"downsample": [8, 8, 8]}}
    )
    with pytest.raises(InputError, match=r"downsample \(8, 8, 8\), its encoder has 2 stages"):
        import_weights([path], tmp_path / "out")


def test_a_file_without_a_known_organ_needs_one(files, tmp_path):
    import_weights(files[:1], tmp_path / "out")
    unnamed = files[1].rename(tmp_path / "model.pt")
    with pytest.raises(InputError, match="`organ`"):
        import_weights([unnamed], tmp_path / "out")


@pytest.mark.parametrize(
    ("drop", "change", "message"),
    [
        ("codebook.embeddings", {}, "has no codebook"),
        ("decoder.conv_last.conv.bias", {}, r"1 tensors missing: decoder\.conv_last\.bias"),
        (None, {"decoder.conv_last.conv.bias": torch.tensor([torch.nan])}, "NaN or infinity"),
        (None, {"decoder.conv_last.conv.bias": torch.zeros(3)}, "of wrong shape"),
        (None, {"decoder.surprise": torch.zeros(3)}, "1 tensors unknown"),
        (None, {"encoder.conv_first.conv.weight": torch.zeros(3)}, "not a model of DiffTumor"),
        (None, {"decoder.conv_last.conv.bias": "text"}, "other things than named tensors"),
    ],
)
def test_faulty_autoencoders_are_explained(tmp_path, monkeypatch, drop, change, message):
    state = published_files.autoencoder_tensors(seeded.autoencoder()) | change
    state.pop(drop, None)
    path = published_files.write_autoencoder(tmp_path / "a.ckpt", seeded.autoencoder(), monkeypatch, state_dict=state)
    with pytest.raises(InputError, match=message):
        import_weights([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": torch.linspace(1e-4, 2e-2, 4)}, "not the cosine one"),
        ({"vqgan.codebook.embeddings": torch.zeros(128, 8)}, "another autoencoder"),
        ({"denoise_fn.init_conv.bias": torch.full((8,), torch.inf)}, "NaN or infinity"),
        ({"denoise_fn.surprise": torch.zeros(1)}, "1 tensors unknown"),
        ({"surprise.x": torch.zeros(1)}, "unknown tensors"),
        ({"denoise_fn.init_temporal_attn.fn.fn.fn.rotary_emb.freqs": torch.ones(16)}, "rotary frequencies"),
    ],
)
def test_faulty_diffusion_models_are_explained(files, tmp_path, change, message):
    import_weights(files[:1], tmp_path / "out")
    path = published_files.write_diffusion(
        tmp_path / "liver_early.pt", seeded.unet(), autoencoder=seeded.autoencoder(), steps=4, **change
    )
    with pytest.raises(InputError, match=message):
        import_weights([path], tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["autoencoder.json", "autoencoder.safetensors"]


def test_other_checkpoints_are_named(tmp_path):
    torch.save({"network_weights": {}, "optimizer": {}}, tmp_path / "checkpoint_final.pth")
    with pytest.raises(InputError, match=r"neither .*it holds \['network_weights', 'optimizer'\]"):
        import_weights([tmp_path / "checkpoint_final.pth"], tmp_path / "out")


def test_wrong_input_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "a.ckpt").write_text("<html>404</html>")
    assert main(["import-weights", str(tmp_path / "a.ckpt"), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_folder_nnunets_results_are_used(files, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    assert main(["import-weights", str(files[0])]) == 0
    assert (tmp_path / "results" / "difftumor_weights" / "autoencoder.safetensors").is_file()
    monkeypatch.delenv("nnUNet_results")
    assert main(["import-weights", str(files[0])]) == 2
