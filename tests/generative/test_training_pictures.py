"""The picture of a validation is large, labelled, and lies as scans are looked at."""

import numpy as np
import pytest
import torch

from nnunet_difftumor import picture_style
from nnunet_difftumor.generative.training.autoencoder_task import AutoencoderTask
from nnunet_difftumor.generative.training.diffusion_task import DiffusionTask
from nnunet_difftumor.generative.training.pictures import validation_picture
from nnunet_difftumor.generative.training.task import middle_slices
from nnunet_difftumor.generative.weights import Volumes


@pytest.mark.parametrize(("high", "wide"), [(96, 96), (8, 16), (64, 48)])
@pytest.mark.parametrize("columns", [AutoencoderTask.columns, DiffusionTask.columns])
def test_every_voxel_is_at_least_four_pixels_and_columns_are_named(monkeypatch, columns, high, wide):
    said, write = [], picture_style.write
    monkeypatch.setattr(picture_style, "write", lambda *where, **more: said.append(where[3]) or write(*where, **more))
    image = validation_picture(
        torch.zeros(2, len(columns), high, wide), columns, volumes=Volumes(), title="step 10 of 20"
    )
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert image.shape[0] >= 2 * 4 * high and image.shape[1] >= len(columns) * 4 * wide
    assert [text for text in said if text in columns] == list(columns)
    assert {"step 10 of 20", "axial, window -175 to 250 HU, voxels 1 mm"} <= set(said)


def test_front_is_above_and_the_patients_right_is_on_the_left():
    volume = torch.full((1, 1, 3, 32, 32), -1.0)  # towards the head, the right and the front
    volume[0, 0, 1, 18:30, 18:30] = 1.0
    picture = middle_slices(volume, lambda b: 1)[:, None]
    image = validation_picture(picture, ("scan",), volumes=Volumes(), title="").astype(int)[78:-6, 6:]
    high, wide = image.shape[0] // 2, 32 * 7 // 2
    assert image[:high, :wide].mean() > 100 and image[high:, wide:].mean() < 40
