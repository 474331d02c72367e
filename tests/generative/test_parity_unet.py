"""The U-Net computes what the public code computes with the same weights."""

import json

import parity
import pytest
import torch

from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule
from nnunet_difftumor.generative.importing.published_weights import published_name
from nnunet_difftumor.generative.networks.attention import RelativePositionBias, rotary_frequencies
from nnunet_difftumor.generative.networks.unet import UNet, sinusoids
from nnunet_difftumor.kernels.reference.depth_attention import rotate

FIXTURES = [(8, "unet_dim8_8"), (24, "unet_dim24_8"), (24, "unet_dim24_nonsquare"), (24, "unet_dim24_24")]
BLOCKS = ("residual1", "residual2", "spatial_attention", "depth_attention")


@pytest.fixture(scope="module")
def models():
    return {channels: parity.unet(channels) for channels in (8, 24)}


@pytest.mark.parametrize(("channels", "name"), FIXTURES)
@torch.no_grad()
def test_predicted_noise_at_every_recorded_step(models, channels, name):
    model, arrays = models[channels], parity.load(name)
    noisy, condition = parity.tensor(arrays["in/x"]), parity.tensor(arrays["in/cond"])
    for step in (0, 1, 2, 3, 150):
        found = model(noisy, torch.tensor([step]), condition=condition)
        parity.assert_close(found, arrays[f"out/eps_t{step}"], f"step {step}")
    if "in/x_b2" in arrays:
        noisy, condition = parity.tensor(arrays["in/x_b2"]), parity.tensor(arrays["in/cond_b2"])
        found = model(noisy, parity.tensor(arrays["in/t_b2"]).long(), condition=condition)
        parity.assert_close(found, arrays["out/eps_b2"], "two samples at different steps")


def own_stage(recorded: str) -> str:
    """Name here of a recorded stage: `downs.0.2` is `down.0.spatial_attention`."""
    kind, _, rest = recorded.partition(".")
    if kind in ("downs", "ups"):
        level, _, position = rest.partition(".")
        return f"{kind[:-1]}.{level}.{(*BLOCKS, 'resample')[int(position)]}"
    return {
        "time_rel_pos_bias": "position_bias",
        "init_conv": "conv_first",
        "init_temporal_attn": "first_attention",
        "time_mlp": "time_embedding",
        "mid_block1": "middle_residual1",
        "mid_spatial_attn": "middle_spatial_attention",
        "mid_temporal_attn": "middle_depth_attention",
        "mid_block2": "middle_residual2",
        "final_conv.0": "last_residual",
        "final_conv.1": "conv_last",
    }[recorded]


@pytest.mark.parametrize(("channels", "name"), FIXTURES[:2])
@torch.no_grad()
def test_every_stage(models, channels, name):
    model, arrays = models[channels], parity.load(name)
    recorded = {key.removeprefix("stage_t2/"): value for key, value in arrays.items() if key.startswith("stage_t2/")}
    assert len(recorded) == 50
    seen = {}
    hooks = [
        model.get_submodule(own_stage(stage)).register_forward_hook(
            lambda _, __, out, stage=stage: seen.__setitem__(stage, out)
        )
        for stage in recorded
    ]
    try:
        model(parity.tensor(arrays["in/x"]), torch.tensor([2]), condition=parity.tensor(arrays["in/cond"]))
    finally:
        for hook in hooks:
            hook.remove()
    for stage, expected in recorded.items():
        parity.assert_close(seen[stage], expected, stage)


def gradients(channels: int, arrays, dtype: torch.dtype) -> UNet:
    """The network with its gradients of the L1 loss at step 2."""
    noise, clean, condition = (parity.tensor(arrays[f"in/{name}"]).to(dtype) for name in ("noise", "x0", "cond"))
    model, steps = parity.unet(channels).to(dtype), torch.tensor([2])
    predicted = model(CosineSchedule(4).to(dtype).add_noise(clean, noise, steps=steps), steps, condition=condition)
    parity.assert_close((predicted - noise).square().mean().view(1), arrays["out/p_loss_l2_t2"])
    loss = (predicted - noise).abs().mean()
    parity.assert_close(loss.view(1), arrays["out/p_loss_l1_t2"])
    loss.backward()
    return model


@pytest.mark.parametrize(("channels", "name"), FIXTURES[:2])
def test_gradients_of_every_parameter(channels, name):
    """In float64, because the recorded ones, in float32, are up to 8e-6 away from it; and in float32 against that."""
    arrays = parity.load(name)
    exact = gradients(channels, arrays, torch.float64)
    recorded = [key.removeprefix("out/gradnorm/") for key in arrays if key.startswith("out/gradnorm/")]
    names = {key: published_name(key, kind="unet") for key in recorded}
    assert len(names) == 290
    assert parity.assert_gradients(exact, names, arrays) == {8: 276, 24: 290}[channels]

    parity.assert_same_gradients(gradients(channels, arrays, torch.float32), exact)


def test_names_and_number_of_the_released_weights():
    released = json.loads((parity.folder() / "unet_keys.json").read_text())["keys"]
    model = UNet()
    expected = {published_name(name, kind="unet") for name in released if not name.endswith("rotary_emb.freqs")}
    assert expected == {name for name in model.state_dict() if name != "frequencies"}
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_018_576


@pytest.mark.parametrize("depth", [8, 24, 40])
def test_buckets_of_the_position_bias(depth):
    expected = parity.tensor(parity.load("schedules")[f"rel_bucket_max32_n{depth}"])
    assert torch.equal(RelativePositionBias(8).buckets(depth).int(), expected)


def test_sinusoids_and_rotation():
    arrays = parity.load("schedules")
    parity.assert_close(sinusoids(torch.arange(200), 24), arrays["sinusoidal24"])
    frequencies = rotary_frequencies(32)
    parity.assert_close(frequencies, arrays["rotary/freqs"])
    angles = torch.arange(24)[:, None] * frequencies
    parity.assert_close(rotate(parity.tensor(arrays["rotary/in"]), angles.cos(), angles.sin()), arrays["rotary/out"])
