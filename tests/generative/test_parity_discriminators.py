"""Discriminators have the published size."""

import json

import parity
import pytest

from nnunet_difftumor.generative.networks.discriminators import PatchDiscriminator


@pytest.mark.parametrize(("dimensions", "prefix"), [(2, "image_discriminator."), (3, "video_discriminator.")])
def test_shapes_are_the_published_ones(dimensions, prefix):
    released = json.loads((parity.folder() / "vqgan_keys.json").read_text())["keys"]
    expected = [tuple(entry["shape"]) for name, entry in released.items() if name.startswith(prefix)]
    model = PatchDiscriminator(dimensions)
    assert [tuple(tensor.shape) for tensor in model.state_dict().values()] == expected
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == {2: 2_764_481, 3: 11_049_665}[dimensions]
