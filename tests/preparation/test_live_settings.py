"""What `prepare` chooses: live tumors where there are models for everything and a GPU, and it says why not."""

import pytest
import tiny_networks

from nnunet_difftumor.preparation.live import with_what_is_available
from nnunet_difftumor.prepared.config import DiffTumorConfig
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
