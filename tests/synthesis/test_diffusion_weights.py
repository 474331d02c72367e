"""Which weights draw which tumor, and what is said when they are not there."""

import pytest
import tiny_networks

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.weights import read_description, save_weights
from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights, load_models


def test_missing_weights_are_named_with_the_command_that_gets_them(tmp_path):
    with pytest.raises(
        InputError,
        match=r"autoencoder.safetensors, liver_early.safetensors, liver_late.safetensors not found \(there: no weights"
        r"\); get them with `difftumor download-weights --organ liver -o .*none`, or train your own with .*"
        r"docs/models\.md\); or name another folder with `weights`$",
    ):
        DiffusionWeights(tmp_path / "none", "liver").check(["early", "late"])
    folder = tiny_networks.write_weights(tmp_path, "pancreas_early")
    with pytest.raises(InputError, match=r"kidney_early.* not found \(there: autoencoder.*, pancreas_early.*`difftumor "
                       r"download-weights --organ kidney --stage early -o"):  # fmt: skip
        DiffusionWeights(folder, "kidney").check(["early"])


def test_models_that_cannot_be_downloaded_are_got_otherwise(tmp_path):
    folder = tiny_networks.write_weights(tmp_path / "some", "liver_early")
    with pytest.raises(InputError, match=r"spleen_early.* not found .*none are published for spleen: train your own"):
        DiffusionWeights(folder, "spleen").check(["early"])
    with pytest.raises(InputError, match=r"get pancreas_early.pt at https.*import-weights pancreas_early.pt -o"):
        DiffusionWeights(folder, "pancreas").check(["early"])
    with pytest.raises(InputError, match=r"import-weights AutoencoderModel.ckpt pancreas_early.pt pancreas_noearly.pt"):
        DiffusionWeights(tmp_path / "none", "pancreas").check(["early", "late"])


def test_a_missing_stage_says_what_can_be_done_without_it(tmp_path):
    weights = DiffusionWeights(tiny_networks.write_weights(tmp_path, "liver_early"), "liver")
    weights.check(["early"])
    with pytest.raises(InputError, match=r"liver_late.* not found.*--stage late.*ask for `size` tiny or small$"):
        weights.check(["early", "late"], others_possible=True)
    with pytest.raises(InputError, match=r"liver_late.* not found.*`weights`$"):
        weights.check(["late"])


def test_weights_under_the_wrong_name_are_refused(tmp_path):
    folder = tiny_networks.write_weights(tmp_path, "pancreas_early", "liver_early")
    for suffix in (".safetensors", ".json"):
        (folder / f"pancreas_early{suffix}").rename(folder / f"kidney_early{suffix}")
        (folder / f"liver_early{suffix}").rename(folder / f"liver_late{suffix}")
    with pytest.raises(InputError, match=r"kidney_early.*is a model of pancreas, early, expected one of kidney, early"):
        DiffusionWeights(folder, "kidney").check(["early"])
    with pytest.raises(InputError, match=r"liver_late.*is a model of liver, early, expected one of liver, late"):
        DiffusionWeights(folder, "liver").check(["late"])


def test_another_autoencoder_is_refused(tmp_path):
    folder = tiny_networks.write_weights(tmp_path, "liver_early")
    path = folder / "autoencoder.safetensors"
    save_weights(path, tiny_networks.autoencoder(seed=3), description=read_description(path))
    with pytest.raises(InputError, match="trained with another autoencoder"):
        load_models([DiffusionWeights(folder, "liver")], ["early"])
