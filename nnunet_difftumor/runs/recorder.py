"""What became of the synthetic samples: counted per epoch, logged sample by sample, and the first ones drawn."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.files import write_json
from nnunet_difftumor.pipeline.live.account import quantiles
from nnunet_difftumor.pipeline.loader import sample_arrays
from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.prepared.roles import Roles
from nnunet_difftumor.runs.synthesis_log import (
    SAMPLES_PICTURE,
    log_path,
    progress_path,
    summary_lines,
    summary_path,
    write_log,
)
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

# A run whose samples are synthetic less than half as often as asked, over two epochs, is not what the user wanted.
_LEAST_ACHIEVED = 0.5
_PATIENCE_EPOCHS = 2
# Between two states of the epoch in progress: seldom enough for a slow network drive.
_SECONDS_BETWEEN_STATES = 5.0


class TooFewSyntheticSamplesError(RuntimeError):
    """Training asked for synthetic samples and got less than half of them."""


@dataclass
class _Epoch:
    began: float = 0.0  # its first batch came
    batches: int = 0
    samples: int = 0
    kinds: Counter = field(default_factory=Counter)
    records: list[dict[str, Any]] = field(default_factory=list)


class SynthesisRecorder:
    """Keeps the account of a run's synthetic samples.

    Args:
        output_folder: of the run's fold.
        rank: of this process in distributed training.
        asked: shares of what samples are to show.
        batches_per_epoch: how many batches an epoch has.
        intensity: of the plans, for pictures in HU.
        tumor_labels: of all organs, for contours in pictures.
        regions: label values of each channel of region-based targets.
        spacing_mm: voxel size of the samples, (z, y, x).
        direction: of a case, as `TrainingSynthesis.direction`.
    """

    def __init__(
        self,
        output_folder: str | Path,
        *,
        rank: int,
        asked: SampleShares,
        batches_per_epoch: int,
        intensity: CTIntensity,
        tumor_labels: tuple[int, ...],
        regions: tuple[tuple[int, ...], ...] | None,
        spacing_mm: tuple[float, ...],
        direction: Callable[[str], np.ndarray | None],
    ) -> None:
        self.folder = Path(output_folder)
        self.rank, self.asked, self.batches_per_epoch = rank, asked, batches_per_epoch
        self._intensity, self._tumor_labels, self._regions = intensity, tumor_labels, regions
        self._spacing_mm, self._direction = spacing_mm, direction
        self._epoch = _Epoch()
        self._next_state = 0.0
        self._poor_epochs = 0
        self._drawn = False

    @classmethod
    def of(
        cls, synthesis: TrainingSynthesis, output_folder: str | Path, *, rank: int, roles: Roles, batches_per_epoch: int
    ) -> "SynthesisRecorder":
        """For a run with this synthetic side, and these cases."""
        return cls(
            output_folder,
            rank=rank,
            asked=synthesis.shares(roles),
            batches_per_epoch=batches_per_epoch,
            intensity=synthesis.grid.intensity,
            tumor_labels=synthesis.tumor_labels,
            regions=synthesis.regions,
            spacing_mm=synthesis.grid.spacing_mm,
            direction=synthesis.direction,
        )

    def add(self, batch: dict[str, Any], *, epoch: int) -> None:
        """Counts a training batch of an epoch, and now and then writes how far the epoch is."""
        if not self._epoch.batches:
            self._epoch.began = time.monotonic()
        self._epoch.batches += 1
        self._epoch.samples += len(batch["keys"])
        self._epoch.kinds.update(batch["kinds"])
        for sample in batch["samples"]:
            self._epoch.records.append({"batch": batch["index"], **sample})
        if not self._drawn and self.rank == 0 and any(sample["in_target"] for sample in batch["samples"]):
            self._drawn = True
            self._draw(batch)
        if time.monotonic() >= self._next_state:
            self._next_state = time.monotonic() + _SECONDS_BETWEEN_STATES
            self._write_state(epoch)

    def finish_epoch(self, number: int, *, server: Mapping[str, Any] | None = None) -> list[str]:
        """Writes the epoch's log file and summary, and starts a new account.

        Args:
            number: of the epoch.
            server: account of the synthesis server (`ServerKeeper.status`); None if there is none.

        Returns:
            Lines for the training log.

        Raises:
            TooFewSyntheticSamplesError: if the share stayed below half of what was asked for two epochs.
        """
        epoch, self._epoch = self._epoch, _Epoch()
        write_log(log_path(self.folder, number, self.rank), epoch.records)
        summary = self._summary(number, epoch, server)
        write_json(summary_path(self.folder, number, self.rank), summary)
        progress_path(self.folder, self.rank).unlink(missing_ok=True)
        self._next_state = 0.0
        lines = summary_lines(summary)
        drawn, reached = summary["drawn"], summary["reached"]
        poor = drawn > 0 and reached < _LEAST_ACHIEVED * drawn
        self._poor_epochs = self._poor_epochs + 1 if poor else 0
        if self._poor_epochs >= _PATIENCE_EPOCHS:
            refused = next((line for line in lines if line.startswith("Refused")), "nothing was refused")
            raise TooFewSyntheticSamplesError(
                f"in each of the last {self._poor_epochs} epochs less than half of the samples that were to be "
                f"synthetic have a tumor in the target (last: {reached} of {drawn}; {refused}). "
                "Check organ labels and sizes in difftumor.json"
            )
        return lines

    def _write_state(self, number: int) -> None:
        """For `difftumor monitor`. A disk that is full is told at the end of the epoch, whose files matter."""
        epoch = self._epoch
        state = {
            "epoch": number,
            "batches": epoch.batches,
            "of": self.batches_per_epoch,
            "seconds": round(time.monotonic() - epoch.began, 1),
            "samples": epoch.samples,
            "reached": sum(record["in_target"] for record in epoch.records),
        }
        with suppress(OSError):
            write_json(progress_path(self.folder, self.rank), state)

    def _summary(self, number: int, epoch: _Epoch, server: Mapping[str, Any] | None) -> dict[str, Any]:
        records = epoch.records
        sizes = Counter(tumor["size_class"] for record in records for tumor in record["tumors"])
        reached = sum(record["in_target"] for record in records)
        return {
            "epoch": number,
            "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
            "samples": epoch.samples,
            "asked": self.asked.synthetic,
            "kinds": {
                kind: {"asked": share, "samples": epoch.kinds[kind]} for kind, share in self.asked.to_dict().items()
            },
            "drawn": len(records),
            "reached": reached,
            "share": round(reached / epoch.samples, 4) if epoch.samples else 0.0,
            "sizes": {size: sizes[size] for size in SIZE_BANDS_MM if sizes[size]},
            "faint": sum(record["faint"] for record in records),
            "sources": dict(Counter(record["source"] for record in records)),
            "refused": dict(Counter(reason for record in records for reason in record["refused"]).most_common()),
            "synthesis_ms": quantiles([record["milliseconds"] for record in records]),
            "waited_ms": quantiles([record["waited_ms"] for record in records if record["source"] == "live"]),
            "server": None if server is None else dict(server),
        }

    def _draw(self, batch: dict[str, Any]) -> None:
        from nnunet_difftumor.runs.pictures import Sample, draw_samples

        draw_samples(
            self.folder / SAMPLES_PICTURE,
            [
                Sample(
                    f"{sample['case']}, batch {batch['index']}",
                    *sample_arrays(batch, sample["sample"]),
                    self._direction(sample["case"]),
                )
                for sample in batch["samples"]
                if sample["in_target"]
            ],
            intensity=self._intensity,
            spacing_mm=self._spacing_mm,
            tumor_labels=self._tumor_labels,
            regions=self._regions,
        )
