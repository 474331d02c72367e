"""A device that computes wrongly is found when the synthesis server starts, and not by tumors that are noise."""

import re

import pytest
import tiny_networks
import torch
import wrong_arithmetic
from live_training import write_settings

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.fast import in_bfloat16
from nnunet_difftumor.pipeline.live import synthesis as synthesis_module
from nnunet_difftumor.pipeline.live.synthesis import LiveSynthesis
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.synthesis.networks.self_test import TOLERANCES, check_networks

pytestmark = pytest.mark.slow(file_seconds=30)


@pytest.fixture
def live(prepared_phantom, tmp_path):
    """Makes live synthesis with the smallest networks, of early and late tumors of three organs."""

    def made(**settings) -> LiveSynthesis:
        return LiveSynthesis(
            DiffTumorConfig.load(write_settings(prepared_phantom.preprocessed, tmp_path, live=settings))
        )

    return made


def start(live: LiveSynthesis, folder) -> str:
    """Starts and ends its server; returns what the server said."""
    try:
        live.start(device="cpu", gpu=None, folder=folder, rank=0)
    finally:
        live.stop()
    return (folder / "server_rank_0.log").read_text()


@pytest.mark.parametrize("wrong", ["encoder", "U-Net", "decoder", "nan"])
def test_a_server_whose_device_computes_wrongly_does_not_start(live, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(synthesis_module, "FACTORY", wrong_arithmetic.FACTORY)
    monkeypatch.setenv(wrong_arithmetic.WRONG, wrong)
    with pytest.raises(InputError) as refused:
        start(live(mode="fast"), tmp_path)
    message = str(refused.value)
    stage = "decoder" if wrong == "nan" else wrong
    assert message.startswith("the synthesis server could not be started: cpu (torch ") and "\n" not in message
    assert f"computes wrongly: the {stage} of " in message and 'set "mode" to "exact"' in message
    distance = re.search(r"by (\S+) of its size, where rounding is at most 0.05", message)[1]
    assert distance == "nan" if wrong == "nan" else 0.2 < float(distance) < 1


def test_the_same_server_starts_in_exact_mode_which_is_not_wrong(live, tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis_module, "FACTORY", wrong_arithmetic.FACTORY)
    monkeypatch.setenv(wrong_arithmetic.WRONG, "decoder")
    assert "they are not tested" in start(live(mode="exact"), tmp_path)


def test_a_sound_server_says_what_it_found_of_each_shape_of_networks_once(live, tmp_path):
    said = start(live(mode="fast"), tmp_path).splitlines()
    tested = [line for line in said if "compute rightly on cpu" in line]
    assert len(tested) == 3, said  # organs, whose early and late networks have one shape
    for line in tested:
        found = [float(value) for value in re.findall(r"(?:encoder|U-Net|decoder) ([\d.e-]+)", line)]
        assert len(found) == 3 and all(0 < distance < TOLERANCES["fast"] for distance in found)


def test_every_sample_of_a_batch_is_compared():
    model = next(iter(tiny_networks.models("early").values()))[0]
    half = in_bfloat16(model)
    right = half.decode_scaled

    def wrong_in_batches(latent: torch.Tensor) -> torch.Tensor:
        found = right(latent)
        if len(found) > 1:
            found[-1] = 0
        return found

    half.decode_scaled = wrong_in_batches
    size = {"patch_size": (16, 16, 16), "mode": "fast", "what": "liver, early"}
    assert "compute rightly" in check_networks(half, model, **size)
    with pytest.raises(
        InputError, match="the decoder of liver, early in bfloat16 differs from float32 on the CPU by 1"
    ):
        check_networks(half, model, batches=(1, 4), **size)


def test_another_float32_than_that_of_the_cpu_is_found_too():
    model = next(iter(tiny_networks.models("early").values()))[0]
    other = next(iter(tiny_networks.models("early").values()))[0]
    other.autoencoder.get_parameter(next(iter(dict(other.autoencoder.named_parameters())))).data.mul_(1.02)
    with pytest.raises(InputError, match=r'of liver, early in float32 differs .* set "device" to "cpu"'):
        check_networks(other, model, patch_size=(16, 16, 16), mode="exact", what="liver, early")
