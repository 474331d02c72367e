"""What became of the synthetic samples: counted per epoch, logged sample by sample, and the first ones drawn."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.pipeline.intensity import CTIntensity
from nnunet_difftumor.pipeline.loader import sample_arrays
from nnunet_difftumor.synthesis.preset import SIZE_BANDS_MM

LOG_FOLDER = "synthesis_log"
PICTURE = "synthetic_samples.png"
# A run whose samples are synthetic less than half as often as asked, over two epochs, is not what the user wanted.
_LEAST_ACHIEVED = 0.5
_PATIENCE_EPOCHS = 2


class TooFewSyntheticSamplesError(RuntimeError):
    """Training asked for synthetic samples and got less than half of them."""


@dataclass
class _Epoch:
    batches: int = 0
    samples: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)


class SynthesisRecorder:
    """Keeps the account of a run's synthetic samples.

    Args:
        output_folder: of the run's fold.
        rank: of this process in distributed training.
        asked: share of samples that shall be synthetic.
        intensity: of the plans, for pictures in HU.
        tumor_labels: of all organs, for contours in pictures.
        regions: label values of each channel of region-based targets.
    """

    def __init__(
        self,
        output_folder: str | Path,
        *,
        rank: int,
        asked: float,
        intensity: CTIntensity,
        tumor_labels: tuple[int, ...],
        regions: tuple[tuple[int, ...], ...] | None,
    ) -> None:
        self.folder = Path(output_folder)
        self.rank, self.asked = rank, asked
        self._intensity, self._tumor_labels, self._regions = intensity, tumor_labels, regions
        self._epoch = _Epoch()
        self._poor_epochs = 0
        self._drawn = False

    def add(self, batch: dict[str, Any]) -> None:
        """Counts a training batch."""
        self._epoch.batches += 1
        self._epoch.samples += len(batch["keys"])
        for sample in batch["samples"]:
            self._epoch.records.append({"batch": batch["index"], **sample})
        if not self._drawn and self.rank == 0 and any(sample["in_target"] for sample in batch["samples"]):
            self._drawn = True
            self._draw(batch)

    def finish_epoch(self, number: int) -> list[str]:
        """Writes the epoch's log file and starts a new account.

        Returns:
            Lines for the training log.

        Raises:
            TooFewSyntheticSamplesError: if the share stayed below half of what was asked for two epochs.
        """
        epoch, self._epoch = self._epoch, _Epoch()
        write_log(log_path(self.folder, number, self.rank), epoch.records)
        reached = [record for record in epoch.records if record["in_target"]]
        sizes = Counter(tumor["size_class"] for record in epoch.records for tumor in record["tumors"])
        refused = Counter(reason for record in epoch.records for reason in record["refused"])
        achieved = len(reached) / epoch.samples if epoch.samples else 0.0
        lines = [
            f"Synthetic share: {achieved:.3f} achieved, {self.asked:.3f} asked "
            f"({len(epoch.records)} of {epoch.samples} "
            f"samples were drawn to be synthetic, {len(reached)} have a synthetic tumor in the target)",
            "Synthetic tumors: " + (", ".join(f"{sizes[s]} {s}" for s in SIZE_BANDS_MM if sizes[s]) or "none"),
        ]
        if epoch.records:
            milliseconds = [record["milliseconds"] for record in epoch.records]
            lines[1] += f"; {median(milliseconds):.0f} ms per synthetic sample (most {max(milliseconds):.0f})"
        if refused:
            lines.append("Refused: " + "; ".join(f"{count} x {reason}" for reason, count in refused.most_common(6)))
        poor = bool(epoch.records) and len(reached) < _LEAST_ACHIEVED * len(epoch.records)
        self._poor_epochs = self._poor_epochs + 1 if poor else 0
        if self._poor_epochs >= _PATIENCE_EPOCHS:
            raise TooFewSyntheticSamplesError(
                f"in each of the last {self._poor_epochs} epochs less than half of the samples that were to be "
                f"synthetic have a tumor in the target (last: {len(reached)} of {len(epoch.records)}; "
                f"{lines[-1] if refused else 'nothing was refused'}). Check organ labels and sizes in difftumor.json"
            )
        return lines

    def _draw(self, batch: dict[str, Any]) -> None:
        from nnunet_difftumor.pipeline.pictures import draw_samples

        draw_samples(
            self.folder / PICTURE,
            [
                (f"{sample['case']}, batch {batch['index']}", *sample_arrays(batch, sample["sample"]))
                for sample in batch["samples"]
                if sample["in_target"]
            ],
            intensity=self._intensity,
            tumor_labels=self._tumor_labels,
            regions=self._regions,
        )


def log_path(folder: str | Path, epoch: int, rank: int) -> Path:
    """Where the samples of an epoch are logged."""
    return Path(folder) / LOG_FOLDER / f"epoch_{epoch:05d}_rank_{rank}.jsonl.gz"


def write_log(path: Path, records: list[dict[str, Any]]) -> None:
    """Writes one epoch's samples, a JSON object per line, atomically."""
    with atomic_path(path) as temporary, gzip.open(temporary, "wt", compresslevel=6) as file:
        for record in records:
            file.write(json.dumps(record, allow_nan=False) + "\n")


def read_log(folder: str | Path, rank: int) -> Iterator[dict[str, Any]]:
    """All logged samples of a run, in the order of batches."""
    for path in sorted((Path(folder) / LOG_FOLDER).glob(f"epoch_*_rank_{rank}.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            yield from (json.loads(line) for line in file)
