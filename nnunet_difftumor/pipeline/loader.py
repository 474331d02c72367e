"""nnU-Net's data loader, with batches that are a function of (run seed, rank, batch number) and crops onto tumors."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_difftumor.pipeline.dataset import SteeredLocations, TrainingSample
from nnunet_difftumor.pipeline.orphans import EndsWithTrainer
from nnunet_difftumor.pipeline.seeding import seeded_generators
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.visibility import count_faint

SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class SamplingPlan:
    """Which cases become which samples.

    Attributes:
        run_seed: whatever identifies the run's random numbers, integers >= 0.
        rank: of this process in distributed training.
        first_batch: number of the first batch to make (above 0 when a run is resumed).
        workers: how many processes make batches; worker w of n makes first_batch + w, first_batch + w + n, ...
        shares: of what samples show.
        real_cases: with their own tumors; may be empty, if their share is 0.
        bases: cases into which tumors are put.
        healthy: cases without any tumor; may be empty, if their share is 0.
        batches_per_epoch: of the training, for the curriculum of sizes.
        regions: label values of each channel of the target, if the dataset trains on regions.
    """

    run_seed: tuple[int, ...]
    rank: int
    first_batch: int
    workers: int
    shares: SampleShares
    real_cases: tuple[str, ...]
    bases: tuple[str, ...]
    healthy: tuple[str, ...]
    batches_per_epoch: int = 250
    regions: tuple[tuple[int, ...], ...] | None = None

    def sample(self, batch: int, position: int) -> TrainingSample:
        """Which case sample `position` of a batch shows, and whether tumors are put into it."""
        entropy = (*self.run_seed, self.rank, batch, position)
        rng = np.random.default_rng((*entropy, 0))
        kind, cases = self._kind(float(rng.random()))
        case = cases[int(rng.integers(len(cases)))]
        # nnU-Net throws the first batch away: batch 1 is the first one of epoch 0.
        epoch = max(0, batch - 1) // self.batches_per_epoch
        tumor_rng = np.random.default_rng((*entropy, 1)) if kind == SYNTHETIC else None
        return TrainingSample(case, tumor_rng, epoch, kind=kind)

    def _kind(self, number: float) -> tuple[str, tuple[str, ...]]:
        """What a sample shows, by a number from 0 to below 1, and the cases that do."""
        if number < self.shares.synthetic:
            return SYNTHETIC, self.bases
        if number < self.shares.synthetic + self.shares.healthy or not self.real_cases:
            return "healthy", self.healthy
        return "real", self.real_cases


class WatchedDataLoader(EndsWithTrainer, nnUNetDataLoader):
    """nnU-Net's loader, whose workers end with the trainer."""


class SyntheticTumorDataLoader(WatchedDataLoader):
    """Makes the batches of a `SamplingPlan` from a `SyntheticTumorDataset`.

    While a batch is made, the tumors of the worker's next one are drawn by the synthesis server, if there is one.

    Beside nnU-Net's `data`, `target` and `keys` a batch has

    - `index`: its number;
    - `kinds`: what each sample shows, "real", "synthetic" or "healthy";
    - `samples`: for each sample that was to be synthetic a dict with `number` (index * batch size + position),
      `sample` (position in the batch), `case`, `source`, `tumors` and `look_alikes` (specs), `refused` (reasons),
      `faint` (how many of the tumors nobody could see), `in_target` (whether the target that the network gets has a
      voxel of them), `milliseconds`, `waited_ms` (of these, for the synthesis server) and `crc32` (`sample_crc32`).
    """

    plan: SamplingPlan
    _made = 0
    _next: tuple[int, Sequence[TrainingSample]] | None = None

    def get_indices(self) -> Sequence[TrainingSample]:
        return self._samples

    def get_bbox(self, data_shape, force_fg, class_locations, overwrite_class=None, verbose=False):
        if isinstance(class_locations, SteeredLocations):
            force_fg, overwrite_class = True, class_locations.steered_class
        return super().get_bbox(data_shape, force_fg, class_locations, overwrite_class, verbose)

    def generate_train_batch(self) -> dict:
        number = self.plan.first_batch + self.thread_id + self._made * self.plan.workers
        self._made += 1
        return self.make_batch(number, following=number + self.plan.workers)

    def make_batch(self, number: int, *, following: int | None = None) -> dict:
        """Makes any batch of the plan.

        Args:
            number: of the batch.
            following: of the one that will be made after it; its tumors are begun already.
        """
        begun, self._next = self._next, None
        self._samples = begun[1] if begun is not None and begun[0] == number else self._begun(number)
        if following is not None:
            self._next = following, self._begun(following)
        self._data.take_records()
        with seeded_generators((*self.plan.run_seed, self.plan.rank, number)):
            batch = super().generate_train_batch()
        positions = [i for i, sample in enumerate(batch["keys"]) if sample.tumor_rng is not None]
        batch["kinds"] = [sample.kind for sample in batch["keys"]]
        batch["keys"] = [str(key) for key in batch["keys"]]
        batch["index"] = number
        batch["samples"] = []
        for position, record in zip(positions, self._data.take_records(), strict=True):
            data, target = sample_arrays(batch, position)
            batch["samples"].append(
                {
                    "number": number * self.batch_size + position,
                    "sample": position,
                    "case": record.case,
                    "source": record.outcome.source,
                    "tumors": [tumor.spec.to_dict() for tumor in record.outcome.tumors],
                    "look_alikes": [lesion.spec.to_dict() for lesion in record.outcome.look_alikes],
                    "refused": record.outcome.refused,
                    "faint": count_faint(record.outcome.tumors),
                    "in_target": self._has_tumor(target, record.outcome.tumor_label),
                    "milliseconds": record.milliseconds,
                    "waited_ms": record.outcome.waited_ms,
                    "crc32": sample_crc32(data, target),
                }
            )
        return batch

    def _begun(self, number: int) -> Sequence[TrainingSample]:
        samples = [self.plan.sample(number, position) for position in range(self.batch_size)]
        self._data.begin(samples, patch_size=self.patch_size)
        return samples

    def _has_tumor(self, target: np.ndarray, tumor_label: int) -> bool:
        if not tumor_label:
            return False
        if self.plan.regions is None:
            return bool((target == tumor_label).any())
        # Region-based targets have one channel per region: the narrowest one that holds the tumor's label.
        channels = [(len(region), i) for i, region in enumerate(self.plan.regions) if tumor_label in region]
        return bool(target[min(channels)[1]].any())


def sample_arrays(batch: dict, position: int) -> tuple[np.ndarray, np.ndarray]:
    """Data (c, z, y, x) and full-resolution target (c, z, y, x) of one sample, as numpy arrays."""
    target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    return tuple(np.ascontiguousarray(torch.as_tensor(array[position]).numpy()) for array in (batch["data"], target))


def sample_crc32(data: np.ndarray, target: np.ndarray) -> int:
    """Checksum by which a replayed sample is compared with the log; SHA-256 would take three times as long."""
    return zlib.crc32(target, zlib.crc32(data))
