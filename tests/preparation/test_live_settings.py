"""What `prepare` chooses: live tumors where there are models for everything and a GPU, and it says why not."""

import json
from dataclasses import replace

import pytest
import tiny_networks

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.live.synthesis import LiveSynthesis
from nnunet_difftumor.preparation.live import with_what_is_available
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.live_settings import LiveSettings
from nnunet_difftumor.synthesis.organ import Organ

LIVER = DiffTumorConfig(organs=(Organ("liver", (1,), 2, (2,)),))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    return tmp_path


def gpu(there: bool, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)


def test_without_weights_tumors_are_hand_crafted(results, monkeypatch):
    gpu(True, monkeypatch)
    assert with_what_is_available(LIVER, dataset="Dataset001_X") == (LIVER, "hand-crafted")


@pytest.mark.parametrize("folder", ["difftumor_weights", "Dataset001_X/generative"])
def test_weights_and_a_gpu_give_live_tumors(results, monkeypatch, folder):
    gpu(True, monkeypatch)
    tiny_networks.write_weights(results / folder, "liver_early", "liver_late")
    config, said = with_what_is_available(LIVER, dataset="Dataset001_X")
    assert (config.source, config.live.weights_folder) == ("live", str(results / folder))
    assert config.organs == LIVER.organs and said == f"drawn live by the diffusion models of {results / folder}"


def test_weights_without_a_gpu_are_pointed_out(results, monkeypatch):
    gpu(False, monkeypatch)
    tiny_networks.write_weights(results / "difftumor_weights", "liver_early", "liver_late")
    config, said = with_what_is_available(LIVER, dataset="Dataset001_X")
    assert config == LIVER
    assert "liver_early.safetensors" in said and "synthesize --bank" in said and str(results) in said


def test_weights_of_one_stage_are_not_enough(results, monkeypatch):
    gpu(True, monkeypatch)
    tiny_networks.write_weights(results / "difftumor_weights", "liver_early")
    config, said = with_what_is_available(LIVER, dataset="Dataset001_X")
    assert config == LIVER and "liver_late.safetensors not found" in said


@pytest.mark.parametrize(
    ("settings", "on_cpu", "on_gpu"),
    [
        ({}, "exact", "fast"),
        ({"mode": "exact"}, "exact", "exact"),
        ({"mode": "fast"}, "fast", "fast"),
        ({"deterministic": True}, "exact", "exact"),
    ],
)
def test_tumors_are_drawn_fast_on_a_gpu_unless_something_says_otherwise(settings, on_cpu, on_gpu):
    found = LiveSettings.from_dict(settings, where="live")
    assert (found.mode_on("cpu"), found.mode_on("cuda")) == (on_cpu, on_gpu)


def test_deterministic_tumors_are_not_fast():
    with pytest.raises(InputError, match='live: mode is "fast", but deterministic tumors are exact'):
        LiveSettings.from_dict({"deterministic": True, "mode": "fast"}, where="live")


@pytest.mark.parametrize(
    ("schedule", "weights_say", "asked", "expected"),
    [(200, 50, None, 10), (200, 50, 50, 50), (200, 50, 25, 25), (10, 5, None, None), (192, 48, None, None)],
)
def test_late_models_take_10_steps_unless_something_says_otherwise(results, schedule, weights_say, asked, expected):
    folder = tiny_networks.write_weights(results / "difftumor_weights", "liver_early", "liver_late")
    page = folder / "liver_late.json"
    record = json.loads(page.read_text())
    record["diffusion"] |= {"steps": schedule, "sampler_steps": weights_say}
    page.write_text(json.dumps(record))
    config = replace(LIVER, source="live", live=LiveSettings(sampler_steps=asked))
    assert LiveSynthesis(config).arguments("cpu")["sampler_steps"] == expected
