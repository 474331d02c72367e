"""`train_autoencoder` and `train_diffusion`: from the files that `preprocess-generative` writes to weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.stored_cases import Lesion, StoredDataset
from nnunet_difftumor.generative.training.crops import LesionCrops, Split, VolumeCrops, lesions_of_stage, split
from nnunet_difftumor.generative.training.run_folder import RunFolder
from nnunet_difftumor.generative.training.settings import (
    AutoencoderTrainingSettings,
    DiffusionTrainingSettings,
    TrainingSettings,
    resolve,
)
from nnunet_difftumor.generative.weights import file_sha256, load_autoencoder
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, diffusion_file
from nnunet_difftumor.nnunet_folders import PREPROCESSED, RESULTS, find_dataset, nnunet_folder


def train_autoencoder(
    dataset_id: int,
    *,
    output: Path | None = None,
    preset: str = "code",
    settings: Path | Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    steps: int | None = None,
    batch_size: int | None = None,
    patch_size: Sequence[int] | None = None,
    seed: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> bool:
    """Trains the autoencoder; called again, it resumes where it was stopped.

    Args:
        dataset_id: of a dataset that `preprocess-generative` has written.
        output: folder of weights; None: `generative` in the dataset's folder in nnUNet_results.
        preset: one of `settings.PRESETS`.
        settings: YAML file, or mapping, with some of the keys; over the preset.
        assignments: "key=value", values as in YAML; over `settings`.
        steps, batch_size, seed: settings of these names; over `assignments`. None: not given.
        patch_size: as they, but along (z, y, x), as everywhere else; the setting is along the networks' axes.
        device: auto, cpu or cuda.
        overwrite: start again, and remove the run that is there.
        report: gets a line per message.

    Returns:
        Whether all steps are done; False after an interruption.

    Raises:
        InputError: for whatever is missing or does not fit.
        DivergedError: if the loss became NaN.
    """
    options = _options(steps=steps, batch_size=batch_size, patch_size=patch_size, seed=seed)
    resolved = resolve(
        AutoencoderTrainingSettings, preset_name=preset, settings=settings, assignments=assignments, options=options
    )
    dataset = StoredDataset(stored_folder(dataset_id))
    cases = split(list(dataset.cases), resolved, known=list(dataset.cases))

    from nnunet_difftumor.generative.training.autoencoder_task import AutoencoderTask
    from nnunet_difftumor.generative.training.fit import fit

    training, validation = _volume_crops(dataset, cases, resolved)
    return fit(
        AutoencoderTask(resolved, volumes=dataset.index.volumes),
        run=RunFolder(output or weights_folder(dataset), Path(AUTOENCODER_FILE).stem),
        crops=training,
        validation=validation,
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
    output: Path | None = None,
    preset: str = "code",
    settings: Path | Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    steps: int | None = None,
    batch_size: int | None = None,
    patch_size: Sequence[int] | None = None,
    seed: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> bool:
    """Trains a diffusion model of the tumors of one organ; called again, it resumes where it was stopped.

    Args:
        dataset_id: of a dataset that `preprocess-generative` has written.
        organ: any of the dataset's; its name becomes that of the weights.
        stage: early (lesions below 20 mm) or late (the others).
        autoencoder: its weights; None: autoencoder.safetensors in `output`.
        The others: as for `train_autoencoder`.

    Returns:
        Whether all steps are done; False after an interruption.

    Raises:
        InputError: for whatever is missing or does not fit.
        DivergedError: if the loss became NaN.
    """
    name = Path(diffusion_file(organ, stage)).stem
    options = _options(steps=steps, batch_size=batch_size, patch_size=patch_size, seed=seed)
    resolved = resolve(
        DiffusionTrainingSettings, preset_name=preset, settings=settings, assignments=assignments, options=options
    )
    dataset = StoredDataset(stored_folder(dataset_id))
    lesions = lesions_of_stage(dataset, organ=organ, stage=stage)
    cases = split(list(lesions), resolved, known=list(dataset.cases))
    output = output or weights_folder(dataset)
    autoencoder = Path(autoencoder or output / AUTOENCODER_FILE)
    first_stage = _autoencoder_for(dataset, autoencoder)

    from nnunet_difftumor.generative.training.diffusion_task import DiffusionTask
    from nnunet_difftumor.generative.training.fit import fit

    task = DiffusionTask(resolved, autoencoder=first_stage, volumes=dataset.index.volumes, organ=organ, stage=stage)
    training, validation = _lesion_crops(dataset, lesions, cases, task)
    about_lesions = _about_lesions([lesion for name in cases.training for lesion in lesions[name]])
    return fit(
        task,
        run=RunFolder(output, name),
        crops=training,
        validation=validation,
        about=_about(dataset, cases) | about_lesions | {"autoencoder_sha256": file_sha256(autoencoder)},
        parts=resolved.accumulation,
        device=device,
        overwrite=overwrite,
        report=report,
    )


def _options(*, patch_size: Sequence[int] | None, **others: Any) -> dict[str, Any]:
    """As `resolve` takes them; the networks' axes are z, x, y."""
    along = None if patch_size is None else [*patch_size[:1], *reversed(patch_size[1:])]
    return {**others, "patch_size": along}


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


def _autoencoder_for(dataset: StoredDataset, weights: Path) -> Autoencoder:
    if not weights.is_file():
        raise InputError(
            f"{weights}: no such file; train one with `difftumor train-autoencoder`, get the published one with "
            f"`difftumor download-weights --organ liver -o {weights.parent}` (docs/models.md), or name one with "
            "`autoencoder`"
        )
    model, description = load_autoencoder(weights)
    if description.volumes != dataset.index.volumes:
        raise InputError(
            f"{weights}: was trained on {description.volumes}, while {dataset.folder} has {dataset.index.volumes}"
        )
    return model


def _volume_crops(dataset: StoredDataset, cases: Split, settings: TrainingSettings) -> tuple[VolumeCrops, VolumeCrops]:
    """Of the training and of the validation."""
    training, validation = (
        VolumeCrops(dataset, names, size=settings.patch_size, seed=settings.seed, validation=held_out)
        for names, held_out in ((cases.training, False), (cases.validation, True))
    )
    return training, validation


def _lesion_crops(
    dataset: StoredDataset, lesions: dict[str, list[Lesion]], cases: Split, task: Any
) -> tuple[LesionCrops, LesionCrops]:
    """Of the training and of the validation, as a DiffusionTask takes them."""
    settings = task.settings

    def crops(names: Sequence[str], *, validation: int) -> LesionCrops:
        return LesionCrops(
            dataset,
            {name: lesions[name] for name in names},
            size=settings.patch_size,
            seed=settings.seed,
            jitter_mm=settings.jitter_mm,
            latent_shape=task.latent_shape,
            diffusion_steps=task.diffusion_steps,
            validation=validation,
        )

    return crops(cases.training, validation=0), crops(cases.validation, validation=settings.validation_crops)


def _about(dataset: StoredDataset, cases: Split) -> dict[str, Any]:
    return {
        "dataset": dataset.index.dataset,
        "preprocessing_sha256": dataset.index.settings_sha256,
        "training_cases": list(cases.training),
        "validation_cases": list(cases.validation),
    }


def _about_lesions(lesions: Sequence[Lesion]) -> dict[str, Any]:
    diameters_mm = [lesion.diameter_mm for lesion in lesions]
    return {"lesions": len(diameters_mm), "lesion_diameters_mm": [min(diameters_mm), max(diameters_mm)]}
