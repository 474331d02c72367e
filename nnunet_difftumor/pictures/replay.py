"""Makes any training sample of a run again: batches are a function of run seed, rank and number."""

import io
import json
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import only_writer, write_json
from nnunet_difftumor.installation import trainer_folders
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.nnunet_folders import PREPROCESSED, environment_with, nnunet_folder
from nnunet_difftumor.pipeline.loader import SyntheticTumorDataLoader, sample_arrays, sample_crc32
from nnunet_difftumor.prepared.config import FILE_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_plans_file
from nnunet_difftumor.runs.run_record import run_path
from nnunet_difftumor.runs.synthesis_log import read_log


@dataclass(frozen=True)
class ReplayedSample:
    """A training sample as the network got it.

    Attributes:
        case: identifier.
        hu: float32 (z, y, x), after augmentation.
        target: (c, z, y, x), labels or one channel per region.
        spacing_mm: voxel size, (z, y, x), before augmentation.
        logged: the record in the run's log; None for samples without synthetic tumors, which are not logged.
        reproduced: whether data and target are those of the log, bit for bit; None if there is no record.
    """

    case: str
    hu: np.ndarray
    target: np.ndarray
    spacing_mm: tuple[float, ...]
    logged: dict[str, Any] | None
    reproduced: bool | None


def replay(run: str | Path, sample: int, *, rank: int = 0, output: str | Path | None = None) -> ReplayedSample:
    """Makes a training sample of a run again, as the network got it, and writes it (see `write_sample`).

    Args:
        run: folder of the run's fold (`nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION/fold_X`).
        sample: its number: batch * batch size + position in the batch, as in the log.
        rank: of the process, in distributed training.
        output: folder for the files; None: `replay/SAMPLE` in the run.

    Raises:
        InputError: as `RunReplay` and `RunReplay.sample`.
    """
    output = Path(run) / "replay" / str(sample) if output is None else Path(output)
    with only_writer(output):
        again = RunReplay(run, rank=rank)
        made = again.sample(sample)
        write_sample(made, output, again)
        return made


class RunReplay:
    """A run's training loader, made again.

    Args:
        run_folder: of the run's fold (`nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION/fold_X`).
        rank: of the process whose samples are wanted.

    Raises:
        InputError: if the folder is not that of a run with synthetic tumors, or its preprocessed data are gone.
    """

    def __init__(self, run_folder: str | Path, *, rank: int = 0) -> None:
        self.folder, self.rank = Path(run_folder).absolute(), rank
        path = run_path(self.folder, rank)
        if not path.is_file():
            raise InputError(
                f"{path}: not found; expected the folder of a fold trained with synthetic tumors "
                "(nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION/fold_X)"
            )
        self.run = load_json(path)
        self.trainer = self._trainer()
        self.loader = self._loader()

    def sample(self, number: int) -> ReplayedSample:
        """Makes one sample; `number` is batch * batch size + position in the batch, as in the log.

        Raises:
            InputError: if the number is negative.
        """
        if number < 0:
            raise InputError(f"`sample` is {number}, expected a number of at least 0")
        batch_number, position = divmod(number, self.run["batch_size"])
        batch = self.loader.make_batch(batch_number)
        data, target = sample_arrays(batch, position)
        logged = next((record for record in read_log(self.folder, self.rank) if record["number"] == number), None)
        return ReplayedSample(
            case=batch["keys"][position],
            hu=self.trainer.synthesis.grid.intensity.to_hu(data[0]),
            target=target,
            spacing_mm=tuple(float(value) for value in self.trainer.configuration_manager.spacing),
            logged=logged,
            reproduced=None if logged is None else logged["crc32"] == sample_crc32(data, target),
        )

    def _trainer(self) -> Any:
        """The run's trainer class with the run's plans and settings; it writes into a folder that is thrown away."""
        import torch

        from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis

        plans = read_plans_file(self.folder.parent / "plans.json")
        dataset_json = load_json(self.folder.parent / "dataset.json")
        dataset_folder = _preprocessed(plans["dataset_name"])
        configuration, fold = self.run["configuration"], self.run["fold"]
        with tempfile.TemporaryDirectory() as scratch, environment_with(nnUNet_results=scratch):
            trainer = self._trainer_class()(
                {**plans, "continue_training": False}, configuration, fold, dataset_json, torch.device("cpu")
            )
            trainer.print_to_log_file = lambda *args, **kwargs: None
            trainer.synthesis = TrainingSynthesis(
                dataset_folder,
                trainer.plans_manager.plans,
                dataset_json=dataset_json,
                configuration=configuration,
                fold=fold,
                config=DiffTumorConfig.load(self.folder / FILE_NAME),
            )
            trainer.initialize()
        trainer.batch_size = self.run["batch_size"]
        trainer.oversample_foreground_percent = self.run["oversample_foreground_percent"]
        trainer.local_rank = self.rank
        return trainer

    def _trainer_class(self) -> type:
        """Found by its name as nnU-Net finds it."""
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        name = self.run["trainer"]
        # It says on stdout where it looks.
        with environment_with(nnUNet_extTrainer=trainer_folders()), redirect_stdout(io.StringIO()):
            try:
                found = recursive_find_trainer_class_by_name(name)
            except RuntimeError:
                found = None
        if not hasattr(found, "synthesis"):
            raise InputError(f"{self.folder}: was trained by {name}, which this installation does not have")
        return found

    def _loader(self) -> SyntheticTumorDataLoader:
        with environment_with(nnUNet_n_proc_DA="0"):
            return self.trainer.get_dataloaders()[0].data_loader


def _preprocessed(name: str) -> Path:
    folder = nnunet_folder(PREPROCESSED) / name
    if not folder.is_dir():
        raise InputError(f"{folder}: not found; the run's samples were made from it, so put it back")
    return folder


def write_sample(sample: ReplayedSample, output: str | Path, replay: RunReplay) -> None:
    """Writes `input_ct.nii.gz`, `target.nii.gz`, `sample.png` and, last, `sample.json`."""
    from nnunet_difftumor.ct import scan_from_array, write_ct, write_labels
    from nnunet_difftumor.runs.pictures import Sample, draw_samples

    output = Path(output)
    synthesis = replay.trainer.synthesis
    # Augmentation turned and scaled the sample: it has a voxel size, but no place in the patient.
    affine = np.diag([*sample.spacing_mm[::-1], 1.0])
    scan = scan_from_array(sample.hu, affine=affine)
    scan.header.set_data_dtype(np.float32)
    write_ct(output / "input_ct.nii.gz", sample.hu, scan, description="SYNTHETIC training sample, nnunet-difftumor")
    for channel, target in enumerate(sample.target):
        name = "target.nii.gz" if len(sample.target) == 1 else f"target_{channel}.nii.gz"
        write_labels(output / name, np.maximum(target, 0).astype(np.int16), scan)
    normalized = synthesis.grid.intensity.to_normalized(sample.hu)[None]
    draw_samples(
        output / "sample.png",
        [Sample(sample.case, normalized, sample.target, synthesis.direction(sample.case))],
        intensity=synthesis.grid.intensity,
        spacing_mm=sample.spacing_mm,
        tumor_labels=[organ.tumor_label for organ in synthesis.config.organs],
        regions=synthesis.regions,
    )
    write_json(
        output / "sample.json",
        {
            "case": sample.case,
            "spacing_mm": list(sample.spacing_mm),
            "logged": json.loads(json.dumps(sample.logged)),
            "reproduced": sample.reproduced,
        },
    )
