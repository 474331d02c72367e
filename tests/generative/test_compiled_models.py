"""torch.compile takes the networks whole, on a CPU, and changes no number: forward and every gradient."""

import pytest
import tiny_networks
import torch


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def as_one_graph(model):
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def assert_equal_with_gradients(seen: torch.Tensor, wanted: torch.Tensor, model: torch.nn.Module) -> None:
    torch.testing.assert_close(seen, wanted, rtol=1e-5, atol=1e-6)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found, expected = (
        dict(zip(parameters, torch.autograd.grad(out.square().mean(), [*parameters.values()]), strict=True))
        for out in (seen, wanted)
    )
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("training", [False, True])
def test_the_autoencoder_is_one_graph(training):
    model, volume = tiny_networks.autoencoder().train(training), randn(1, 1, 6, 8, 4)
    # In training, counts and sums are taken, and the loss pulls the latent to its codes.
    seen, wanted = (call(volume, statistics=training) for call in (as_one_graph(model), model))
    assert torch.equal(seen.quantized.indices, wanted.quantized.indices)
    if training:
        torch.testing.assert_close(seen.quantized.counts, wanted.quantized.counts)
        torch.testing.assert_close(seen.quantized.sums, wanted.quantized.sums)
    outputs = (found.volume + found.quantized.commitment_loss for found in (seen, wanted))
    assert_equal_with_gradients(*outputs, model)


def test_the_unet_is_one_graph():
    model = tiny_networks.unet()
    noisy, condition = (randn(2, channels, 3, 4, 6) for channels in (8, 9))
    steps = torch.tensor([0, 3])
    outputs = (call(noisy, steps, condition=condition) for call in (as_one_graph(model), model))
    assert_equal_with_gradients(*outputs, model)
