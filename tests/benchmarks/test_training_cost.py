import importlib.util
import json
from pathlib import Path

import pytest
import torch
from pages import REPOSITORY
from torch.utils.flop_counter import FlopCounterMode

from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet

PAGE = REPOSITORY / "docs" / "publish_weights.md"
SMALL = ["batch_size=1", "precision=32", "patch_size=[32, 32, 32]"]


@pytest.fixture(scope="module")
def benchmark():
    path = Path(REPOSITORY / "benchmarks" / "training_cost.py")
    specification = importlib.util.spec_from_file_location("training_cost", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def forward_tflop(function, *arguments, **named) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments, **named)
    return counter.get_total_flops() / 1e12


def test_a_step_of_the_autoencoder_costs_three_passes_forward(benchmark):
    cost = benchmark.measure("autoencoder", assignments=SMALL)
    with torch.device("meta"):
        model, volume, latent = Autoencoder(), torch.empty(1, 1, 32, 32, 32), torch.empty(1, 8, 8, 8, 8)
    passes = forward_tflop(model.encode, volume) + forward_tflop(model.decode_embeddings, latent)
    # The codebook's product has no backward pass; the features of the perceptual loss add a little.
    assert cost["tflop"] == pytest.approx(3 * passes, rel=0.08)
    assert cost["crops"] == 1 and cost["seconds"] > 0
    # At least the outputs of the four convolutions at full size, of 32 channels in float32.
    assert cost["gigabytes"] > 4 * 32 * 32**3 * 4 / 1e9


def test_a_step_of_the_diffusion_costs_three_passes_of_the_network_and_two_encodings(benchmark):
    cost = benchmark.measure("diffusion", assignments=[*SMALL, "accumulation=1"])
    with torch.device("meta"):
        encoder, network, volume = Autoencoder(), UNet(), torch.empty(1, 1, 32, 32, 32)
        latent, condition = torch.empty(1, 8, 8, 8, 8), torch.empty(1, 9, 8, 8, 8)
        steps = torch.zeros(1, dtype=torch.int64)
    passes = 3 * forward_tflop(network, latent, steps, condition=condition) + 2 * forward_tflop(encoder.encode, volume)
    assert cost["tflop"] == pytest.approx(passes, rel=0.08)


def test_hours_are_operations_over_the_assumed_share_of_the_peak(benchmark):
    parts = {
        "autoencoder": {"crops": 1, "tflop": 1.0, "seconds": 1.0, "gigabytes": 1.0},
        "autoencoder with discriminators": {"crops": 2, "tflop": 4.0, "seconds": 1.0, "gigabytes": 1.0},
        "diffusion": {"crops": 1, "tflop": 0.1, "seconds": 1.0, "gigabytes": 1.0},
    }
    found = {(name, chosen): (crops, tflop) for name, chosen, crops, tflop in benchmark.trainings(parts)}
    assert found["autoencoder", "paper"] == (800_000, 4 * (5_000 * 1 + 195_000 * 2))
    assert found["diffusion", "code"] == (1_200_000, pytest.approx(120_000))
    lines = benchmark.tables({"parts": parts}).splitlines()
    # 1 580 000 TFLOP at 31.2 TFLOP/s, at 98.9; a quarter of the paper's crops in a quarter of its 672 hours.
    assert "| autoencoder | `paper` | 800,000 | 14 | 4.4 | 168 |" in lines


def test_the_page_has_the_tables_of_the_stored_result(benchmark):
    result = json.loads(benchmark.RESULTS.read_text())
    assert benchmark.tables(result) in PAGE.read_text()
    for share in benchmark.paper_shares(result).values():
        assert f"{100 * share:.2g} %" in PAGE.read_text()
