"""From a name to a renderer: which weights draw in which organ, and what is loaded for it."""

import pytest
import tiny_networks

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.weights import read_description
from nnunet_difftumor.generative.weights_folder import own_weights
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer
from nnunet_difftumor.synthesis.renderers import (
    OrganRenderers,
    RendererChoice,
    choose_renderer,
    parse_weights_organ,
    recorded_renderer,
)
from nnunet_difftumor.synthesis.size_bands import EARLY_SIZES, SIZE_BANDS_MM, stage_of

LIVE = '"live" of difftumor.json'


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return tiny_networks.write_weights(
        folder, "liver_early", "liver_late", "kidney_early", "kidney_late", "gland_early"
    )


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
        (["liver", "spleen"], "kidney", {"liver": "kidney", "spleen": "kidney"}),
        (["liver", "kidney"], "liver", {"liver": "liver", "kidney": "liver"}),
        (["kidney"], "gland", {"kidney": "gland"}),
        (["gland"], None, {"gland": "gland"}),
        (["left_gland"], None, {"left_gland": "gland"}),
        (["left_gland"], "liver", {"left_gland": "liver"}),
        (["liver", "kidney"], {"kidney": "liver"}, {"liver": "liver", "kidney": "liver"}),
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
        (["spleen"], None, None, r"^organ spleen: has no diffusion models of its own in .*"
         r"\(there: gland, kidney, liver\); "
         "choose with `weights_organ` which organ's models draw in it, for example `weights_organ` liver, "
         r"or train its own \(docs/models\.md\)$"),
        (["lver"], None, None, "organ lver: has no .*; is liver meant[?] Otherwise choose with `weights_organ`"),
        (["galnd"], None, None, "organ galnd: has no .*; is gland meant[?]"),
        (["glandular"], None, None, "organ glandular: has no diffusion models of its own"),  # no whole word
        (["liver_and_kidney"], None, None, "organ liver_and_kidney: has no .* choose with `weights_organ`"),
        (["kidney"], "pancreas", None, "pancreas_early.safetensors not found"),
        (["liver", "spleen"], None, None, "organ spleen: .*, for example `weights_organ` spleen=liver"),
        (["spleen"], "lung", None, "`weights_organ` is 'lung', expected one of liver, pancreas, kidney, gland"),
        (["spleen"], "kidny", None, "`weights_organ` is 'kidny', expected .*; is kidney meant[?]"),
        (["liver"], "../liver", None, "`weights_organ` is '../liver', expected a plain name"),
        (["liver"], {"spleen": "liver"}, LIVE, r'"weights_organs" in "live" of difftumor.json names spleen, expected'),
        (["liver", "spleen"], None, LIVE,
         'organ spleen: has no .*; choose with "weights_organs" in "live" of difftumor.json '
         "which organ's models draw in it, for example " '{"spleen": "liver"}'),
    ],
)  # fmt: skip
def test_an_organ_without_weights_or_a_wrong_choice_is_refused(weights, organs, chosen, settings, message):
    with pytest.raises(InputError, match=message):
        choose_renderer(
            "diffusion", organs=organs, sizes=["tiny"], weights=weights, weights_organ=chosen, settings=settings
        )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["liver"], "liver"),
        (["colon=liver"], {"colon": "liver"}),
        (["colon=liver", "left_kidney=kidney"], {"colon": "liver", "left_kidney": "kidney"}),
    ],
)
def test_a_choice_is_one_name_or_one_for_each_organ(words, expected):
    assert parse_weights_organ(words) == expected


@pytest.mark.parametrize("words", [["liver", "kidney"], ["colon=liver", "kidney"], ["a=b", "a=c"], ["a=b=c"], ["=a"]])
def test_a_choice_that_is_neither_is_refused(words):
    with pytest.raises(InputError, match=r"`weights_organ` is .*, expected one name, for all organs, or ORGAN=NAME"):
        parse_weights_organ(words)


def test_the_longest_name_that_is_a_word_of_the_organs_is_its_own():
    there = ("adrenal_gland", "gland", "bladder")
    assert own_weights("left_adrenal_gland", there) == "adrenal_gland"
    assert own_weights("gallbladder", there) is None
    assert own_weights("kidney_gland", there) is None  # it could be either


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
