"""Which weights draw which tumor, and what is said when they are not there."""

import pytest
import tiny_networks

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.weights import read_description, save_weights
from nnunet_difftumor.synthesis.look.preset import SIZES
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer
from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights, organ_of_weights, stage_of, stages_of


def test_sizes_need_the_stages_of_the_paper():
    assert {size: stages_of(size) for size in SIZES} == {
        "tiny": ["early"],
        "small": ["early"],
        "medium": ["late"],
        "large": ["late"],
        "mix": ["early", "late"],
    }
    with pytest.raises(InputError, match="size_class is 'mix'"):
        stage_of("mix")


@pytest.mark.parametrize(
    ("organ", "chosen", "expected"),
    [
        ("liver", None, "liver"),
        ("left_kidney", None, "kidney"),
        ("Pancreas", "pancreas", "pancreas"),
        ("spleen", "liver", "liver"),
        ("liver_and_kidney", "kidney", "kidney"),
    ],
)
def test_an_organs_name_names_its_weights(organ, chosen, expected):
    assert organ_of_weights(organ, chosen=chosen) == expected


@pytest.mark.parametrize(
    ("organ", "chosen", "message"),
    [
        ("spleen", None, "organ spleen: .* or with --weights-organ whose"),
        ("organ", None, "say with --organ which"),
        ("liver_and_kidney", None, "say with --organ which"),
        ("kidney", "pancreas", "--weights-organ is pancreas, but the organ is kidney"),
        ("spleen", "lung", "--weights-organ is 'lung', expected one of liver, pancreas, kidney"),
    ],
)
def test_an_organ_without_weights_or_a_contradiction_is_refused(organ, chosen, message):
    with pytest.raises(InputError, match=message):
        organ_of_weights(organ, chosen=chosen)


def test_missing_weights_are_named_with_the_command_that_gets_them(tmp_path):
    with pytest.raises(
        InputError,
        match=r"autoencoder.safetensors, liver_early.safetensors, liver_late.safetensors not found \(there: no weights"
        r"\); .*import-weights AutoencoderModel.ckpt liver_early.pt liver_noearly.pt -o .*--weights$",
    ):
        DiffusionWeights(tmp_path / "none", "liver").check(["early", "late"])
    folder = tiny_networks.write_weights(tmp_path, "pancreas_early")
    with pytest.raises(InputError, match=r"kidney_early.* not found \(there: autoencoder.*, pancreas_early.*`difftumor "
                       r"import-weights kidney_early.pt -o"):  # fmt: skip
        DiffusionWeights(folder, "kidney").check(["early"])


def test_a_missing_stage_says_what_can_be_done_without_it(tmp_path):
    weights = DiffusionWeights(tiny_networks.write_weights(tmp_path, "liver_early"), "liver")
    weights.check(["early"])
    with pytest.raises(InputError, match=r"liver_late.* not found.*liver_noearly.pt.*ask for --size tiny or small$"):
        weights.check(["early", "late"])
    with pytest.raises(InputError, match=r"liver_late.* not found.*--weights$"):
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
        DiffusionRenderer.open(DiffusionWeights(folder, "liver"), stages=["early"])


def test_a_renderer_knows_its_files(tmp_path):
    folder = tiny_networks.write_weights(tmp_path, "liver_early", "liver_late")
    record = DiffusionRenderer.open(DiffusionWeights(folder, "liver"), stages=["late"], threads=3).record()
    assert record["device"] == "cpu" and record["threads"] == 3 and record["organ"] == "liver"
    assert [file["file"] for file in record["weights"]] == ["autoencoder.safetensors", "liver_late.safetensors"]
    assert record["weights"][1] == {
        "file": "liver_late.safetensors",
        "sha256": read_description(folder / "liver_late.safetensors").sha256,
        "organ": "liver",
        "stage": "late",
        "source": {"made": "by a test"},
        "published_as": None,
    }
