"""Whether the networks of the published size learn one real crop by heart, on a CPU, in minutes.

The crop is a cube of 32 mm around the metastasis of 17 mm in `liver_tumors` of DIFFTUMOR_TEST_DATA. Autoencoder: mean
absolute error and commitment only, Adam 3e-4; the best error within 400 steps (here 200) is at most 0.03 of -1 to 1.
Diffusion: the loss on one noise falls by 90 %. Exits 1 when a bar is missed.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import map_coordinates

from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.training.autoencoder_task import AutoencoderTask
from nnunet_difftumor.generative.training.diffusion_task import DiffusionTask
from nnunet_difftumor.generative.training.fit import fit
from nnunet_difftumor.generative.training.run_folder import RunFolder, read_curve
from nnunet_difftumor.generative.training.settings import (
    AutoencoderTrainingSettings,
    DiffusionTrainingSettings,
    resolve,
)
from nnunet_difftumor.generative.training.task import TrainingTask, initial_weights
from nnunet_difftumor.generative.weights import Volumes

# RAS.
CENTRE_MM = (-113.4, -137.6, 157.0)
RADIUS_MM = 8.5
L1_BAR, NOISE_BAR, SECONDS_BAR = 0.03, 0.1, 300
_ALONE = ["batch_size=1", "validation_crops=1", "log_every=1", "precision=32", "workers=0"]


class SameCrop(torch.utils.data.Dataset):
    """One crop for every number."""

    def __init__(self, crop: dict):
        self.crop = crop

    def __getitem__(self, _: int) -> dict:
        return self.crop


def real_crop(test_data: Path, *, edge: int = 32) -> torch.Tensor:
    """float32 (1, z, x, y) in [-1, 1], at 1 mm, axes to superior, right and anterior; linear interpolation."""
    image = nib.load(test_data / "liver_tumors" / "ct.nii.gz")
    offsets = np.arange(edge) - (edge - 1) / 2
    z, x, y = np.meshgrid(offsets, offsets, offsets, indexing="ij")
    inverse = np.linalg.inv(image.affine)
    indices = (np.stack([x, y, z], -1) + CENTRE_MM) @ inverse[:3, :3].T + inverse[:3, 3]
    hu = map_coordinates(np.asarray(image.dataobj, np.float32), np.moveaxis(indices, -1, 0), order=1)
    return torch.from_numpy(((np.clip(hu, -175, 250) + 175) / 212.5 - 1).astype(np.float32))[None]


def overfit_autoencoder(volume: torch.Tensor, *, steps: int, folder: Path) -> float:
    """Best mean absolute error."""
    chosen = ["learning_rate=3e-4", "l1_weight=1", "perceptual_weight=0"]
    chosen += [f"discriminator_start={steps}", "discriminator_channels=1"]
    settings = resolve(
        AutoencoderTrainingSettings,
        preset_name="paper",
        assignments=[*_ALONE, *chosen, f"steps={steps}", f"patch_size={list(volume.shape[1:])}"],
    )
    crop = {"volume": volume, "slices": torch.zeros(3, dtype=torch.int64)}
    return min(line["l1"] for line in _curve(AutoencoderTask(settings, volumes=Volumes()), crop, folder))


def overfit_diffusion(volume: torch.Tensor, *, steps: int, folder: Path) -> float:
    """The least loss as a share of the first. The latent is that of an autoencoder that is not trained."""
    settings = resolve(
        DiffusionTrainingSettings,
        preset_name="code",
        assignments=[
            *_ALONE,
            "accumulation=1",
            "learning_rate=1e-3",
            f"steps={steps}",
            f"patch_size={list(volume.shape[1:])}",
        ],
    )
    with initial_weights(0):
        autoencoder = Autoencoder()
        autoencoder.codebook.start(torch.randn(16384, 8))
    task = DiffusionTask(settings, autoencoder=autoencoder, volumes=Volumes(), organ="liver", stage="early")
    z, x, y = (torch.arange(n) - (n - 1) / 2 for n in volume.shape[1:])
    distance = (z[:, None, None] ** 2 + x[:, None] ** 2 + y**2).sqrt()
    noise = torch.randn(8, *(n // 4 for n in volume.shape[1:]), generator=torch.Generator().manual_seed(0))
    crop = {"volume": volume, "tumor": distance[None] < RADIUS_MM, "noise": noise, "step": 1}
    losses = [line["loss"] for line in _curve(task, crop, folder)]
    return min(losses) / losses[0]


def _curve(task: TrainingTask, crop: dict, folder: Path) -> list[dict]:
    run, crops = RunFolder(folder, "run"), SameCrop(crop)
    fit(task, run=run, crops=crops, validation=crops, about={}, device="cpu", report=lambda _: None)
    return [line for line in read_curve(run.folder / "curve.jsonl") if line["part"] == "training"]


def main() -> int:
    if "DIFFTUMOR_TEST_DATA" not in os.environ:
        print("DIFFTUMOR_TEST_DATA names no folder of real CT", file=sys.stderr)
        return 2
    volume = real_crop(Path(os.environ["DIFFTUMOR_TEST_DATA"]))
    start, missed = time.monotonic(), False
    for name, train, steps, bar in (
        ("autoencoder, best L1", overfit_autoencoder, 200, L1_BAR),
        ("diffusion, least loss over the first", overfit_diffusion, 100, NOISE_BAR),
    ):
        with tempfile.TemporaryDirectory() as folder:
            value = train(volume, steps=steps, folder=Path(folder))
        missed |= value > bar
        print(f"{name}, within {steps} steps: {value:.4f}, bar {bar}, {time.monotonic() - start:.0f} s", flush=True)
    missed |= time.monotonic() - start > SECONDS_BAR
    print("MISSED" if missed else "all bars held")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
