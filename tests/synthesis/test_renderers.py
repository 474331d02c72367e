"""From a name to a renderer: which weights draw in which organ, and what is loaded for it."""

import pytest
import tiny_networks

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.weights import read_description
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer
from nnunet_difftumor.synthesis.renderers import OrganRenderers, RendererChoice, choose_renderer, recorded_renderer
from nnunet_difftumor.synthesis.size_bands import EARLY_SIZES, SIZE_BANDS_MM, stage_of

LIVE = '"live" of difftumor.json'


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return tiny_networks.write_weights(folder, "liver_early", "liver_late", "kidney_early", "kidney_late")


def drawn_by(choice: RendererChoice) -> dict[str, str]:
    return {organ: found.organ for organ, found in choice.weights.items()}


def test_sizes_need_the_stages_of_the_paper():
    expected = {"tiny": "early", "small": "early", "medium": "late", "large": "late"}
    assert {size: stage_of(size) for size in SIZE_BANDS_MM} == expected
    assert EARLY_SIZES == ("tiny", "small")
    with pytest.raises(InputError, match="size_class is 'mix'"):
        stage_of("mix")


@pytest.mark.parametrize(
    ("organs", "chosen", "expected"),
    [
        (["liver"], None, {"liver": "liver"}),
        (["left_kidney"], None, {"left_kidney": "kidney"}),
        (["Liver"], "liver", {"Liver": "liver"}),
        (["spleen"], "liver", {"spleen": "liver"}),
        (["liver_and_kidney"], "kidney", {"liver_and_kidney": "kidney"}),
        (["liver", "spleen"], "kidney", {"liver": "liver", "spleen": "kidney"}),
        (["liver", "kidney"], "liver", {"liver": "liver", "kidney": "kidney"}),
        (["liver", "spleen", "colon"], {"spleen": "liver", "colon": "kidney"},
         {"liver": "liver", "spleen": "liver", "colon": "kidney"}),
    ],
)  # fmt: skip
def test_an_organs_name_names_its_weights(weights, organs, chosen, expected):
    choice = choose_renderer("diffusion", organs=organs, sizes=["tiny"], weights=weights, weights_organ=chosen)
    assert drawn_by(choice) == expected and choice.stages == ("early",)


@pytest.mark.parametrize(
    ("organs", "chosen", "settings", "message"),
    [
        (["spleen"], None, None, "organ spleen: .* or say with `weights_organ` whose tumors"),
        (["organ"], None, None, "say with `organ` which of them it is"),
        (["liver_and_kidney"], None, None, "say with `organ` which"),
        (["kidney"], "pancreas", None, "`weights_organ` is pancreas, but kidney has weights of its own; leave it out"),
        (["liver", "kidney"], "pancreas", None, "is pancreas, but liver, kidney have weights of their own"),
        (["spleen"], "lung", None, "`weights_organ` is 'lung', expected one of liver, pancreas, kidney"),
        (["liver"], "lung", None, "`weights_organ` is 'lung', expected one of liver, pancreas, kidney"),
        (["liver"], {"spleen": "liver"}, LIVE, r'"weights_organs" in "live" of difftumor.json names spleen, expected'),
        (["liver"], {"liver": "kidney"}, LIVE, "is kidney for liver, which has weights of its own"),
        (["liver", "spleen"], None, LIVE, 'organ spleen: diffusion models are for .*; say with "weights_organs" in'),
    ],
)
def test_an_organ_without_weights_or_a_contradiction_is_refused(weights, organs, chosen, settings, message):
    with pytest.raises(InputError, match=message):
        choose_renderer(
            "diffusion", organs=organs, sizes=["tiny"], weights=weights, weights_organ=chosen, settings=settings
        )


def test_early_and_late_models_and_all_organs_share_one_autoencoder(weights):
    organs = ["liver", "left_kidney", "right_kidney", "spleen"]
    choice = choose_renderer(
        "diffusion", organs=organs, sizes=SIZE_BANDS_MM, weights=weights, weights_organ={"spleen": "liver"}
    )
    opened = choice.open()
    assert isinstance(opened, OrganRenderers) and list(opened.renderers) == organs
    assert opened.renderers["left_kidney"] is opened.renderers["right_kidney"]
    assert opened.renderers["spleen"] is opened.renderers["liver"] is not opened.renderers["left_kidney"]
    autoencoders = {
        id(model.autoencoder) for renderer in opened.renderers.values() for model, _ in renderer.models.values()
    }
    assert len(autoencoders) == 1
    assert set(opened.renderers["liver"].models) == {"early", "late"}


def test_one_organ_needs_no_dispatch_and_loads_what_its_tumors_need(weights):
    choice = choose_renderer("diffusion", organs=["liver"], sizes=SIZE_BANDS_MM, weights=weights)
    both = choice.open()
    assert isinstance(both, DiffusionRenderer) and set(both.models) == {"early", "late"}
    assert both.models["early"][0].autoencoder is both.models["late"][0].autoencoder


def test_a_choice_goes_through_json_and_to_another_device(weights):
    choice = choose_renderer("diffusion", organs=["liver", "kidney"], sizes=["tiny", "large"], weights=weights)
    assert choice.on("cuda", mode="fast").arguments() == {
        "weights_folder": str(weights),
        "organs": {"liver": "liver", "kidney": "kidney"},
        "stages": ["early", "late"],
        "device": "cuda",
        "mode": "fast",
        "sampler_steps": None,
    }
    assert choice.arguments()["device"] == "cpu"


def test_a_renderer_knows_its_files(weights):
    record = {"name": "diffusion", "device": "cpu", "organ": "liver", "threads": 3}
    files = choose_renderer("diffusion", organs=["liver"], sizes=["large"], weights=weights).files()["liver"]
    choice = recorded_renderer({**record, "weights": files}, organ="liver", manifest="m.json", weights=weights)
    large = tiny_spec("large")
    found = choice.open([large]).record()
    assert found["device"] == "cpu" and found["threads"] == 3 and found["organ"] == "liver"
    assert [file["file"] for file in found["weights"]] == ["autoencoder.safetensors", "liver_late.safetensors"]
    assert found["weights"][1] == {
        "file": "liver_late.safetensors",
        "sha256": read_description(weights / "liver_late.safetensors").sha256,
        "organ": "liver",
        "stage": "late",
        "source": {"made": "by a test"},
        "published_as": None,
    }


def tiny_spec(size: str):
    from dataclasses import replace

    from tumors import spec

    return replace(spec(), size_class=size, renderer="diffusion")
