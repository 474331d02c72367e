"""Random crops of stored cases. Crop k of a run is a function of (seed, k) only, whatever reads it and when."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.generative.stages import EARLY_BELOW_MM
from nnunet_difftumor.generative.stored_cases import Lesion, StoredDataset
from nnunet_difftumor.generative.training.settings import TrainingSettings
from nnunet_difftumor.names import nearest_name

_TRAINING, _VALIDATION = 0, 1
# With fewer cases none is held out unless it is named: there would be too few to train with.
_LEAST_TO_HOLD_OUT = 10


@dataclass(frozen=True)
class Split:
    """Case names.

    Attributes:
        training: those that are trained with.
        validation: those that validate; those of the training if none is held out.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]


def split(eligible: Sequence[str], settings: TrainingSettings, *, known: Sequence[str]) -> Split:
    """Training and validation cases.

    Those that the settings name; else a tenth, drawn with the seed, validates; of fewer than 10 cases, all do both.

    Args:
        eligible: cases that have what is trained, for example lesions.
        settings: with seed and names.
        known: all cases of the dataset.

    Raises:
        InputError: for names that are not known, not eligible or in both lists, or if no case is left to train with.
    """
    for key in ("training_cases", "validation_cases"):
        unknown = sorted(set(getattr(settings, key)) - set(known))
        if unknown:
            raise InputError(f"{key}: {unknown} are not in the dataset, which has {some(known)}")
    both = sorted(set(settings.training_cases) & set(settings.validation_cases))
    if both:
        raise InputError(f"training_cases, validation_cases: {both} are in both")
    eligible = sorted(eligible)
    validation = [name for name in eligible if name in settings.validation_cases]
    if settings.validation_cases and not validation:
        raise InputError(f"validation_cases: none of {some(settings.validation_cases)} has what is trained")
    if not settings.validation_cases and not settings.training_cases and len(eligible) >= _LEAST_TO_HOLD_OUT:
        order = np.random.default_rng([settings.seed, len(eligible)]).permutation(len(eligible))
        validation = sorted(eligible[i] for i in order[: len(eligible) // 10])
    training = [name for name in eligible if name not in validation]
    if settings.training_cases:
        training = [name for name in training if name in settings.training_cases]
    if not training:
        raise InputError(f"training_cases: no case is left to train with, of {some(eligible)}")
    if not validation:
        validation = [name for name in eligible if name not in training] if settings.training_cases else []
    return Split(tuple(training), tuple(validation or training))


def lesions_of_stage(dataset: StoredDataset, *, organ: str, stage: str) -> dict[str, list[Lesion]]:
    """Lesions by case: early ones have an equivalent diameter below 20 mm, late ones the others.

    Raises:
        InputError: if there are none, with how many of which size there are.
    """
    organs = [entry["name"] for entry in dataset.index.organs]
    if organ not in organs:
        meant = nearest_name(organ, organs)
        raise InputError(
            f"organ {organ!r}: {dataset.folder} has {', '.join(organs) or 'no organ'}"
            + (f"; is {meant} meant?" if meant else "; name it when preprocessing, for example `organ` colon=1:2")
        )
    found = dataset.lesions(organ)
    wanted = [(name, lesion) for name, lesion in found if (lesion.diameter_mm < EARLY_BELOW_MM) == (stage == "early")]
    if not wanted:
        diameters = [lesion.diameter_mm for _, lesion in found]
        sizes = "none of any size"
        if diameters:
            sizes = f"{len(diameters)}, all of {min(diameters):.1f} to {max(diameters):.1f} mm"
        limit = f"{'below' if stage == 'early' else 'of at least'} {EARLY_BELOW_MM:g} mm"
        raise InputError(f"{dataset.folder}: no {organ} lesion {limit}, which {stage} models are trained with; {sizes}")
    by_case: dict[str, list[Lesion]] = {}
    for name, lesion in wanted:
        by_case.setdefault(name, []).append(lesion)
    return by_case


class VolumeCrops(torch.utils.data.Dataset):
    """Crops for the autoencoder: a case, an organ of it and a middle in the organ's box are drawn, each evenly.

    A crop that would leave the stored volume is moved inwards; a volume smaller than the crop is continued by its
    last voxels, as the networks' convolutions and the renderer do.

    Args:
        dataset: stored cases.
        cases: names to draw from.
        size: voxels (z, x, y).
        seed: of the run.
        validation: fixed crops that training never draws.
    """

    def __init__(
        self, dataset: StoredDataset, cases: Sequence[str], *, size: Sequence[int], seed: int, validation: bool = False
    ):
        self.dataset, self.cases, self.size = dataset, tuple(cases), tuple(size)
        self.entropy = (seed, _VALIDATION if validation else _TRAINING)

    def __getitem__(self, k: int) -> dict[str, Any]:
        """`volume`, float32 (1, z, x, y) in [-1, 1], and `slices`, int64 (3,): an index along each axis."""
        rng = np.random.default_rng([*self.entropy, k])
        name = self.cases[rng.integers(len(self.cases))]
        case = self.dataset.cases[name]
        boxes = list(case.organs.values()) or [tuple((0, n) for n in case.shape)]
        box = boxes[rng.integers(len(boxes))]
        middle = [rng.integers(start, stop) for start, stop in box]
        volume = self.dataset.volume(name, _corner(middle, self.size, case.shape), self.size)
        return {"volume": torch.from_numpy(volume[None]), "slices": torch.from_numpy(rng.integers(self.size))}


class LesionCrops(torch.utils.data.Dataset):
    """Crops around lesions for the diffusion: a case and a lesion of it are drawn, each evenly.

    The mask is that lesion only. Other lesions in the crop stay in the image as they are, whatever their size: at
    synthesis too, one tumor is drawn into what is there.

    Args:
        dataset: stored cases.
        lesions: by case.
        size: voxels (z, x, y).
        seed: of the run.
        jitter_mm: how far the crop's middle may lie from the lesion's, along each axis; never so far that the
            lesion's middle leaves the crop.
        latent_shape: (c, d, h, w), of the noise.
        diffusion_steps: of the schedule.
        validation: as in `VolumeCrops`: how many there are; their diffusion steps are spread evenly. 0: training.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        lesions: dict[str, list[Lesion]],
        *,
        size: Sequence[int],
        seed: int,
        jitter_mm: float,
        latent_shape: Sequence[int],
        diffusion_steps: int,
        validation: int = 0,
    ):
        self.dataset, self.size = dataset, tuple(size)
        self.lesions = [(name, lesions[name]) for name in sorted(lesions)]
        spacing_mm = dataset.index.volumes.spacing_mm
        self.jitter = [min(round(jitter_mm / mm), (n - 1) // 2) for mm, n in zip(spacing_mm, size, strict=True)]
        self.latent_shape, self.diffusion_steps, self.validation = tuple(latent_shape), diffusion_steps, validation
        self.entropy = (seed, _VALIDATION if validation else _TRAINING)

    def __getitem__(self, k: int) -> dict[str, Any]:
        """`volume`, float32 (1, z, x, y) in [-1, 1]; `tumor`, boolean of this shape; `noise`, float32 of the latent's
        shape; `step`, int64, of the diffusion.
        """
        rng = np.random.default_rng([*self.entropy, k])
        name, lesions = self.lesions[rng.integers(len(self.lesions))]
        lesion = lesions[rng.integers(len(lesions))]
        middle = [c + rng.integers(-j, j + 1) for c, j in zip(lesion.centre, self.jitter, strict=True)]
        corner = _corner(middle, self.size, self.dataset.cases[name].shape)
        volume = self.dataset.volume(name, corner, self.size)
        tumor = self.dataset.lesion_mask(name, lesion.number, corner, size=self.size)
        noise = rng.standard_normal(self.latent_shape, dtype=np.float32)
        step = int(rng.integers(self.diffusion_steps))
        if self.validation:
            step = (2 * k + 1) * self.diffusion_steps // (2 * self.validation)
        return {
            "volume": torch.from_numpy(volume[None]),
            "tumor": torch.from_numpy(tumor[None]),
            "noise": torch.from_numpy(noise),
            "step": step,
        }


class BatchNumbers:
    """Numbers of the crops of each batch, without end: batch b of all processes together has crops b * n ... of n.

    Args:
        size: crops of one process.
        first: gives the first batch; asked when iteration starts, so that a resumed run starts where it was.
        rank, world_size: of this process, and how many there are.
    """

    def __init__(self, size: int, *, first: Callable[[], int], rank: int, world_size: int):
        self.size, self.first, self.rank, self.world_size = size, first, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        batch = self.first()
        while True:
            start = (batch * self.world_size + self.rank) * self.size
            yield list(range(start, start + self.size))
            batch += 1


def _corner(middle: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Of a crop around a voxel, moved into the volume; in the middle of a volume that is smaller."""
    corners = []
    for m, n, whole in zip(middle, size, shape, strict=True):
        corners.append(min(max(int(m) - n // 2, 0), whole - n) if whole >= n else (whole - n) // 2)
    return corners
