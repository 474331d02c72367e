"""`train_autoencoder` and `train_diffusion`: from the files that `preprocess-generative` writes to weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stages import ORGANS, STAGES
from nnunet_difftumor.generative.stored_cases import StoredDataset
from nnunet_difftumor.generative.training.crops import LesionCrops, Split, VolumeCrops, lesions_of_stage, split
from nnunet_difftumor.generative.training.run_folder import RunFolder
from nnunet_difftumor.generative.training.settings import (
    AutoencoderTrainingSettings,
    DiffusionTrainingSettings,
    resolve,
)
from nnunet_difftumor.generative.weights import file_sha256, load_autoencoder
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, diffusion_file
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RESULTS, find_dataset, nnunet_folder


def train_autoencoder(
    dataset_id: int,
    *,
    preset: str = "code",
    settings_file: Path | None = None,
    assignments: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> bool:
    """Trains the autoencoder; called again, it goes on where it was stopped.

    Args:
        dataset_id: of a dataset that `preprocess-generative` has written.
        preset, settings_file, assignments, options: see `settings.resolve`.
        output: folder of weights; None: `generative` in the dataset's folder in nnUNet_results.
        overwrite: start anew.
        device: auto, cpu or cuda.
        report: gets a line per message.

    Returns:
        Whether all steps are done; False after an interruption.

    Raises:
        InputError: for whatever is missing or does not fit.
        DivergedError: if the loss became NaN.
    """
    settings = resolve(
        AutoencoderTrainingSettings,
        preset_name=preset,
        file=settings_file,
        assignments=assignments,
        options=options,
    )
    dataset = StoredDataset(stored_folder(dataset_id))
    cases = split(list(dataset.cases), settings, known=list(dataset.cases))

    from nnunet_difftumor.generative.training.autoencoder_task import AutoencoderTask
    from nnunet_difftumor.generative.training.fit import fit

    def crops(names: Sequence[str], *, validation: bool) -> VolumeCrops:
        return VolumeCrops(dataset, names, size=settings.patch_size, seed=settings.seed, validation=validation)

    return fit(
        AutoencoderTask(settings, volumes=dataset.index.volumes),
        run=RunFolder(output or weights_folder(dataset), Path(AUTOENCODER_FILE).stem),
        crops=crops(cases.training, validation=False),
        validation=crops(cases.validation, validation=True),
        about=_about(dataset, cases),
        device=device,
        overwrite=overwrite,
        report=report,
    )


def train_diffusion(
    dataset_id: int,
    *,
    organ: str,
    stage: str,
    autoencoder: Path | None = None,
    preset: str = "code",
    settings_file: Path | None = None,
    assignments: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> bool:
    """Trains a diffusion model of the tumors of one organ; called again, it goes on where it was stopped.

    Args:
        dataset_id: of a dataset that `preprocess-generative` has written.
        organ: liver, pancreas or kidney.
        stage: early (lesions below 20 mm) or late (the others).
        autoencoder: its weights; None: autoencoder.safetensors in `output`.
        preset, settings_file, assignments, options, output, overwrite, device, report: as in `train_autoencoder`.

    Returns:
        Whether all steps are done; False after an interruption.

    Raises:
        InputError: for whatever is missing or does not fit.
        DivergedError: if the loss became NaN.
    """
    if organ not in ORGANS or stage not in STAGES:
        raise InputError(f"organ {organ}, stage {stage}: expected {', '.join(ORGANS)} and {', '.join(STAGES)}")
    settings = resolve(
        DiffusionTrainingSettings,
        preset_name=preset,
        file=settings_file,
        assignments=assignments,
        options=options,
    )
    dataset = StoredDataset(stored_folder(dataset_id))
    lesions = lesions_of_stage(dataset, organ=organ, stage=stage)
    cases = split(list(lesions), settings, known=list(dataset.cases))
    output = output or weights_folder(dataset)
    autoencoder = Path(autoencoder or output / AUTOENCODER_FILE)
    first_stage, description = load_autoencoder(autoencoder)
    if description.volumes != dataset.index.volumes:
        raise InputError(
            f"{autoencoder}: was trained on {description.volumes}, while {dataset.folder} has {dataset.index.volumes}"
        )

    from nnunet_difftumor.generative.training.diffusion_task import DiffusionTask, diffusion_steps
    from nnunet_difftumor.generative.training.fit import fit

    task = DiffusionTask(settings, autoencoder=first_stage, volumes=dataset.index.volumes, organ=organ, stage=stage)
    config = first_stage.config
    grid = [n // factor for n, factor in zip(settings.patch_size, config.downsampling, strict=True)]

    def crops(names: Sequence[str], *, validation: int) -> LesionCrops:
        return LesionCrops(
            dataset,
            {name: lesions[name] for name in names},
            size=settings.patch_size,
            seed=settings.seed,
            jitter_mm=settings.jitter_mm,
            latent_shape=(config.latent_channels, *grid),
            diffusion_steps=diffusion_steps(settings, stage),
            validation=validation,
        )

    used = [lesion.diameter_mm for name in cases.training for lesion in lesions[name]]
    return fit(
        task,
        run=RunFolder(output, Path(diffusion_file(organ, stage)).stem),
        crops=crops(cases.training, validation=0),
        validation=crops(cases.validation, validation=settings.validation_crops),
        about=_about(dataset, cases)
        | {
            "lesions": len(used),
            "lesion_diameters_mm": [min(used), max(used)],
            "autoencoder_sha256": file_sha256(autoencoder),
        },
        parts=settings.accumulation,
        device=device,
        overwrite=overwrite,
        report=report,
    )


def stored_folder(dataset_id: int) -> Path:
    """`nnUNet_preprocessed/DatasetXXX_NAME/generative`, found without nnU-Net.

    Raises:
        InputError: if it is not there.
    """
    then = f"run `difftumor preprocess-generative -d {dataset_id}` first"
    return find_dataset(PREPROCESSED, dataset_id, inside="generative", then=then)


def weights_folder(dataset: StoredDataset) -> Path:
    """`nnUNet_results/DatasetXXX_NAME/generative`.

    Raises:
        InputError: if nnUNet_results is not set.
    """
    return nnunet_folder(RESULTS, instead="name a folder with `output`") / dataset.index.dataset / "generative"


def _about(dataset: StoredDataset, cases: Split) -> dict[str, Any]:
    return {
        "dataset": dataset.index.dataset,
        "preprocessing_sha256": dataset.index.settings_sha256,
        "training_cases": list(cases.training),
        "validation_cases": list(cases.validation),
    }
