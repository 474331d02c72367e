"""Weights that were trained too little, or badly, say so wherever they draw; others are silent."""

import pytest
import tiny_networks

from nnunet_difftumor.files import write_json
from nnunet_difftumor.generative.trained_enough import doubts
from nnunet_difftumor.generative.weights import Description
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.synthesis.renderers import choose_renderer

TRAINED = {"steps": 60_000, "settings": {"loss": "l1"}, "validation": {"noise_loss": 0.08}}


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        ("diffusion", TRAINED, None),
        ("diffusion", TRAINED | {"steps": 2_000}, None),
        ("diffusion", TRAINED | {"steps": 60}, "trained for 60 steps only, expected at least 2000; "),
        (
            "diffusion",
            TRAINED | {"validation": {"noise_loss": 0.6}},
            "its noise loss is 0.60, where guessing gets 0.80; ",
        ),
        # The squared error of guessing is 1.
        ("diffusion", TRAINED | {"settings": {"loss": "l2"}, "validation": {"noise_loss": 0.45}}, None),
        (
            "diffusion",
            TRAINED | {"settings": {"loss": "l2"}, "validation": {"noise_loss": 0.6}},
            "guessing gets 1.00; ",
        ),
        ("autoencoder", {"steps": 40_000, "validation": {"psnr_db": 27.0}}, None),
        (
            "autoencoder",
            {"steps": 9, "validation": {"psnr_db": 12.34}},
            "9 steps only, expected at least 2000 and its rec",
        ),
        ("autoencoder", {"steps": 9, "validation": {"psnr_db": 12.34}}, "a PSNR of 12.3 dB, expected at least 20; "),
        # Imported weights and files of others say nothing of this, or something else.
        ("diffusion", {"files": ["liver_early.pt"]}, None),
        ("diffusion", {"steps": "many", "settings": "none", "validation": [1]}, None),
        ("autoencoder", {"steps": True, "validation": {"psnr_db": None}}, None),
    ],
)
def test_doubts_name_the_figure_and_what_is_expected(kind, source, said):
    line = doubts(Description(kind, {}, source=source), name="liver_early.safetensors")
    if said is None:
        assert line is None
    else:
        assert line.startswith("weights liver_early.safetensors: ") and said in line


def test_models_of_two_organs_tell_of_their_autoencoder_once(tmp_path):
    weights = tiny_networks.write_weights(tmp_path, "liver_early", "kidney_early")
    for file in ("autoencoder.json", "kidney_early.json"):
        write_json(weights / file, load_json(weights / file) | {"source": {"steps": 60}})
    choice = choose_renderer("diffusion", organs=("liver", "kidney"), sizes=["small"], weights=weights)
    assert [note.partition(":")[0] for note in choice.notes()] == [
        "weights autoencoder.safetensors",
        "weights kidney_early.safetensors",
    ]
