"""nnU-Net's dataset with synthetic tumors: samples that ask for tumors get them before anything else happens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.pipeline.case import OverlayCase
from nnunet_difftumor.pipeline.intensity import CTIntensity
from nnunet_difftumor.pipeline.pools import PooledDataset
from nnunet_difftumor.pipeline.sources import Outcome, TumorSource


class TrainingSample(str):
    """The identifier of a case, as nnU-Net knows it, with the tumors' generator if the sample shall be synthetic."""

    tumor_rng: np.random.Generator | None

    def __new__(cls, identifier: str, tumor_rng: np.random.Generator | None) -> "TrainingSample":
        sample = super().__new__(cls, identifier)
        sample.tumor_rng = tumor_rng
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
        milliseconds: time that placing and rendering took.
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
        intensity: of the plans.
        spacing_mm: of the preprocessed configuration, (z, y, x).
    """

    def __init__(
        self,
        folder: str,
        identifiers: Sequence[str],
        *,
        source: TumorSource,
        intensity: CTIntensity,
        spacing_mm: tuple[float, ...],
    ) -> None:
        super().__init__(folder, identifiers)
        self.source, self.intensity, self.spacing_mm = source, intensity, spacing_mm
        self._records: list[SampleRecord] = []

    def load_case(self, identifier: str):
        data, seg, seg_prev, properties = super().load_case(identifier)
        rng = getattr(identifier, "tumor_rng", None)
        if rng is None:
            return data, seg, seg_prev, properties
        start = time.perf_counter()
        case = OverlayCase(str(identifier), data, seg, spacing_mm=self.spacing_mm, intensity=self.intensity)
        try:
            outcome = self.source.add_tumors(case, rng)
        except Exception as error:  # an exception in a worker would end the training; this is counted and reported
            case = OverlayCase(str(identifier), data, seg, spacing_mm=self.spacing_mm, intensity=self.intensity)
            outcome = Outcome(refused=[f"{type(error).__name__}: {error}"])
        if outcome.tumors:
            # Any tumor with the same chance, and then any of its voxels: small ones are not crowded out by large ones.
            tumor = outcome.tumors[int(rng.integers(len(outcome.tumors)))]
            voxels = np.argwhere(tumor.mask) + [part.start for part in tumor.box]
            locations = SteeredLocations(properties["class_locations"])
            locations[outcome.tumor_label] = np.insert(voxels, 0, 0, axis=1)
            locations.steered_class = outcome.tumor_label
            properties = {**properties, "class_locations": locations}
        self._records.append(SampleRecord(str(identifier), outcome, (time.perf_counter() - start) * 1e3))
        return case.data, case.seg, seg_prev, properties

    def take_records(self) -> list[SampleRecord]:
        """The records since the last call, in the order in which the samples were loaded."""
        records, self._records = self._records, []
        return records
