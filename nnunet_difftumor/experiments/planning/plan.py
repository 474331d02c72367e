"""The plan of an experiment: its parts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nnunet_difftumor.evaluation.evaluate import NSD_TOLERANCE_MM
from nnunet_difftumor.prepared.config import PLANS_NAME

DEVICES = ("cuda", "cpu", "mps")
_LABEL_FREE = "nnUNetTrainerDiffTumorLabelFree"


@dataclass(frozen=True)
class Arm:
    """One of the methods that are compared.

    Attributes:
        trainer: of this package, so that first weights, steps and batches are those of the other arms.
        settings: of difftumor.json that are not the dataset's own.
        cases: of the real training cases, how many are trained on, drawn by the seed, or which; None: all.
        against: the arm that this one is compared with; None: the plan's baseline.
    """

    trainer: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    cases: int | tuple[str, ...] | None = None
    against: str | None = None

    @property
    def is_label_free(self) -> bool:
        return self.trainer.startswith(_LABEL_FREE)


@dataclass(frozen=True)
class HeldOut:
    """Cases that no arm is trained on.

    Attributes:
        images: folder of scans, named as nnU-Net wants them.
        labels: folder of their true label maps.
        table: CSV with columns case and patient, for several scans of one patient.
    """

    images: str
    labels: str
    table: str | None = None


@dataclass(frozen=True)
class Measures:
    """Options of `evaluate`, which see."""

    tumor_label: tuple[int, ...] = ()
    organ_masks: str | None = None
    organ_label: tuple[int, ...] = ()
    match: str = "any-overlap"
    min_iou: float = 0.0
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM


@dataclass(frozen=True)
class Published:
    """A figure of a paper, to be shown beside ours.

    Attributes:
        arm: that does what the paper's method did.
        figure: one of `FIGURES`.
        value: in the unit of ours: shares from 0 to 1.
        source: paper and table.
        tumor: name of the tumor label; None: the only one.
    """

    arm: str
    figure: str
    value: float
    source: str
    tumor: str | None = None


@dataclass(frozen=True)
class Plan:
    """An experiment.

    Attributes:
        name: of the experiment.
        dataset: number of a prepared dataset.
        arms: by name.
        baseline: the arm that the others are compared with.
        seeds: of the trainings; each arm is trained with each.
        epochs, iterations_per_epoch: of every training.
        about: what is asked, in words.
        plans, configuration: of the prepared dataset.
        folds: numbers, or "all"; a single one where there is `test`.
        test: cases that are predicted; None: the validation of every fold.
        device: of nnU-Net.
        step_size: between the tiles of a prediction, as a share of the patch.
        evaluate: how predictions are measured.
        published: figures of papers.
        seconds_per_iteration: for estimates of time; None: as finished runs took.
        slurm: options of sbatch, such as {"gres": "gpu:1", "time": "24:00:00"}.
    """

    name: str
    dataset: int
    arms: Mapping[str, Arm]
    baseline: str
    seeds: tuple[int, ...]
    epochs: int
    iterations_per_epoch: int
    about: str = ""
    plans: str = PLANS_NAME
    configuration: str = "3d_fullres"
    folds: tuple[int | str, ...] = (0,)
    test: HeldOut | None = None
    device: str = "cuda"
    step_size: float = 0.5
    evaluate: Measures = field(default_factory=Measures)
    published: tuple[Published, ...] = ()
    seconds_per_iteration: float | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """Of one training."""
        return self.epochs * self.iterations_per_epoch

    def against(self, arm: str) -> str | None:
        """The arm that one is compared with; None for the baseline."""
        return self.arms[arm].against or (None if arm == self.baseline else self.baseline)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `checked_plan` gives an equal plan."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    """Of what JSON has."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
