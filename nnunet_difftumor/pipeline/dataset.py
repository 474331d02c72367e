"""nnU-Net's dataset with synthetic tumors: samples that ask for tumors get them before anything else happens."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_difftumor.pipeline.sources import Outcome, TumorSource
from nnunet_difftumor.prepared.grid import PreparedGrid
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.pools import PooledDataset


@dataclass(frozen=True)
class _Begun:
    """A sample that is being made.

    Attributes:
        loaded: what nnU-Net's dataset gave for the case.
        case: gets the tumors.
        finish: adds them.
        milliseconds: spent so far.
    """

    loaded: tuple[Any, ...]
    case: OverlayCase
    finish: Callable[[], Outcome]
    milliseconds: float


class TrainingSample(str):
    """The identifier of a case, as nnU-Net knows it, with the tumors' generator if the sample is to be synthetic.

    Attributes:
        tumor_rng: makes the tumors; None: the case as it is.
        epoch: of the training.
        kind: what it shows, for the log.
        begun: what has been done for it already.
    """

    tumor_rng: np.random.Generator | None
    epoch: int
    kind: str
    begun: _Begun | None = None

    def __new__(
        cls, identifier: str, tumor_rng: np.random.Generator | None, epoch: int = 0, *, kind: str = ""
    ) -> "TrainingSample":
        sample = super().__new__(cls, identifier)
        sample.tumor_rng, sample.epoch, sample.kind = tumor_rng, epoch, kind
        return sample


class SteeredLocations(dict):
    """nnU-Net's `class_locations` of a case with synthetic tumors, and the class onto which the crop is steered."""

    steered_class: int


@dataclass(frozen=True)
class SampleRecord:
    """How a synthetic sample was made.

    Attributes:
        case: identifier.
        outcome: its tumors, and what was refused.
        milliseconds: time that the loader spent on placing, rendering and waiting.
    """

    case: str
    outcome: Outcome
    milliseconds: float


class SyntheticTumorDataset(PooledDataset):
    """The training cases: real ones as they are, bases with tumors where a `TrainingSample` asks for them.

    Args:
        folder: of the preprocessed configuration.
        identifiers: of all cases that may be drawn.
        source: makes the tumors.
        grid: of the preprocessed configuration.
    """

    def __init__(
        self,
        folder: str,
        identifiers: Sequence[str],
        *,
        source: TumorSource,
        grid: PreparedGrid,
    ) -> None:
        super().__init__(folder, identifiers)
        self.source, self.grid = source, grid
        self._records: list[SampleRecord] = []

    def begin(self, samples: Iterable[TrainingSample], *, patch_size: Sequence[int]) -> None:
        """Begins samples that will be loaded later, as far as another process can work on them meanwhile.

        Args:
            samples: of a batch.
            patch_size: voxels (z, y, x) of the crop that will be taken of each.
        """
        for sample in samples:
            if sample.tumor_rng is not None:
                sample.begun = self._begin(sample, patch_size)

    def load_case(self, identifier: str):
        if getattr(identifier, "tumor_rng", None) is None:
            return super().load_case(identifier)
        begun = identifier.begun or self._begin(identifier)
        start = time.perf_counter()
        case, (_, _, seg_prev, properties) = begun.case, begun.loaded
        try:
            outcome = begun.finish()
        except Exception as error:  # an exception in a worker would end the training; this is counted and reported
            case = OverlayCase.of(str(identifier), begun.loaded, self.grid)
            outcome = Outcome(refused=[f"{type(error).__name__}: {error}"])
        if outcome.tumors:
            tumor = outcome.steered
            if tumor is None:
                # Any tumor with the same chance: small ones are not crowded out by large ones.
                tumor = outcome.tumors[int(identifier.tumor_rng.integers(len(outcome.tumors)))]
            voxels = np.argwhere(tumor.mask) + [part.start for part in tumor.box]
            locations = SteeredLocations(properties["class_locations"])
            locations[outcome.tumor_label] = np.insert(voxels, 0, 0, axis=1)
            locations.steered_class = outcome.tumor_label
            properties = {**properties, "class_locations": locations}
        milliseconds = begun.milliseconds + (time.perf_counter() - start) * 1e3
        self._records.append(SampleRecord(str(identifier), outcome, milliseconds))
        return case.data, case.seg, seg_prev, properties

    def take_records(self) -> list[SampleRecord]:
        """The records since the last call, in the order in which the samples were loaded."""
        records, self._records = self._records, []
        return records

    def _begin(self, sample: TrainingSample, patch_size: Sequence[int] | None = None) -> _Begun:
        start = time.perf_counter()
        loaded = super().load_case(sample)
        case = OverlayCase.of(str(sample), loaded, self.grid)
        try:
            finish = self.source.begin(case, sample.tumor_rng, sample.epoch, patch_size=patch_size)
        except Exception as error:  # as in `load_case`
            finish = _Refused(f"{type(error).__name__}: {error}")
        return _Begun(loaded, case, finish, (time.perf_counter() - start) * 1e3)


@dataclass(frozen=True)
class _Refused:
    """In place of a source that failed."""

    reason: str

    def __call__(self) -> Outcome:
        return Outcome(refused=[self.reason])
