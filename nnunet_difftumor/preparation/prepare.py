"""`prepare`: nnU-Net's fingerprint, plans and preprocessing, then statistics, folds, settings and validation cases."""

import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.configuration import default_num_processes
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from tqdm import tqdm

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.nnunet_folders import RAW, nnunet_folder
from nnunet_difftumor.preparation.datasets import check_channel, dataset_folders
from nnunet_difftumor.preparation.folds import make_splits
from nnunet_difftumor.preparation.healthy import HealthyPools, axes_of
from nnunet_difftumor.preparation.live import with_what_is_available
from nnunet_difftumor.preparation.plans import CONFIGURATION, plan, stored_request
from nnunet_difftumor.preparation.settings import kept_settings, new_settings
from nnunet_difftumor.preparation.validation_cases import ValidationCaseMaker
from nnunet_difftumor.prepared.config import FILE_NAME, PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.enhancement import unenhanced_notes
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.prepared.label_free_validation import validation_folder
from nnunet_difftumor.prepared.pools import PooledDataset
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.organ import Organ


def prepare(
    dataset_id: int,
    *,
    planner: str = "nnUNetPlannerResEncM",
    spacing_mm: Sequence[float] | None = None,
    patch_size: Sequence[int] | None = None,
    organs: Sequence[Organ] | None = None,
    preset: str | None = None,
    healthy: Sequence[int] = (),
    processes: int | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Prepares an nnU-Net raw dataset for training with synthetic tumors.

    What is there already is kept, so that an interrupted call goes on: plans and preprocessed cases made for the same
    request, statistics of the same organs, validation cases, and a difftumor.json that the user may have edited.

    Args:
        dataset_id: of a dataset in nnUNet_raw, with one CT channel and organ labels.
        planner: class name of any nnU-Net planner.
        spacing_mm: target spacing (z, y, x) instead of the planner's.
        patch_size: voxels (z, y, x) instead of the planner's; fitted to what the network can divide.
        organs: organ and tumor label pairs, instead of those found in dataset.json; those of a difftumor.json that is
            there, if any.
        preset: of the tumors' distributions, instead of "realistic"; that of a difftumor.json that is there, if any.
        healthy: datasets in nnUNet_raw with the same labels, all of whose cases become bases: tumors are put into them,
            and they never train or validate as they are with real cases. Those of earlier calls stay.
        processes: for nnU-Net's preprocessing; None: as many as nnUNet_def_n_proc says (8 unless set), at most one
            per core.
        overwrite: start anew: plan and preprocess again, and replace difftumor.json, the folds, and healthy pools of
            earlier calls.
        report: gets a line per step.

    Returns:
        Path of difftumor.json.

    Raises:
        InputError: for whatever is missing or does not fit in the dataset.
    """
    raw, folder = dataset_folders(dataset_id)
    dataset_json = load_json(str(raw / "dataset.json"))
    check_channel(raw, dataset_json)
    config_path = folder / FILE_NAME
    kept = config_path.is_file() and not overwrite
    if kept:
        config = kept_settings(config_path, dataset_json, organs=organs, preset=preset)
    else:
        config = new_settings(dataset_json, organs=organs, preset=preset)
        config, tumors = with_what_is_available(config, dataset=folder.name)
    processes = processes or min(default_num_processes, os.cpu_count() or 1)
    pool_folders = [dataset_folders(pool, argument="healthy")[0] for pool in healthy]
    pools = HealthyPools(folder, raw, pools=pool_folders, overwrite=overwrite)

    request = {
        "planner": planner,
        "spacing_mm": [float(value) for value in spacing_mm] if spacing_mm else None,
        "patch_size": [int(value) for value in patch_size] if patch_size else None,
    }
    plans = _plan_and_preprocess(dataset_id, folder, request, processes, overwrite, report)
    pools.preprocess(plans, processes=processes, report=report)

    settings = f"kept {config_path}" if kept else "; ".join([*map(_describe, config.organs), f"tumors {tumors}"])
    report(f"[4/6] settings: {settings}")
    present = _measure(folder, plans, config, report)
    splits_path = folder / "splits_final.json"
    splits = _splits(splits_path, raw, config, present, pools, overwrite)
    write_json(splits_path, splits)
    bases = splits[0]["synthesis_bases"]
    real = sorted({case for split in splits for key in ("train", "val") for case in split[key]})
    report(
        f"      {len(splits)} folds; {len(real)} real tumor cases: {_some(real)}; {len(bases)} bases: {_some(bases)}"
    )
    neither = sorted(set(present) - set(real) - set(bases))
    if neither:
        report(
            f"      not used, without any organ of difftumor.json, or with a lesion in a healthy pool: {_some(neither)}"
        )
    _compare_axes(folder, plans, pools, report)
    statistics = StatisticsStore(folder, plans["configurations"][CONFIGURATION]["data_identifier"])
    for note in unenhanced_notes(config, statistics, [*bases, *(real if config.real_cases_as_bases else ())]):
        report(f"      NOTE: {note}")

    _make_validation_cases(folder, plans, dataset_json, config, splits, pools, overwrite, report)
    # Last: trainers take this file as the sign that the dataset is prepared.
    config.save(config_path)
    trainer = "nnUNetTrainerDiffTumor" if real else "nnUNetTrainerDiffTumorLabelFree"
    # nnU-Net takes CUDA unless told otherwise.
    device = "" if torch.cuda.is_available() else " -device cpu"
    report(
        f"prepared: {config_path}\n"
        f"look at: difftumor preview -d {dataset_id}\n"
        f"train with: nnUNetv2_train {dataset_id} {CONFIGURATION} 0 -tr {trainer} -p {PLANS_NAME}{device}"
    )
    return config_path


def _plan_and_preprocess(
    dataset_id: int,
    folder: Path,
    request: dict[str, Any],
    processes: int,
    overwrite: bool,
    report: Callable[[str], None],
) -> dict[str, Any]:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, preprocess_dataset

    plans_file, log = (folder / f"{PLANS_NAME}.{ending}" for ending in ("json", "log"))
    if plans_file.is_file() and not overwrite:
        made_for = stored_request(str(plans_file))
        if made_for != request:
            raise InputError(
                f"{plans_file}: was made for {made_for}, now {request} is asked for; give `overwrite` to plan and "
                "preprocess again"
            )
        report(f"[1/6] fingerprint: kept\n[2/6] plans: kept {plans_file}")
    else:
        report("[1/6] fingerprint, with nnU-Net's check of the dataset")
        try:
            extract_fingerprints([dataset_id], num_processes=processes, check_dataset_integrity=True, clean=overwrite)
        except (AssertionError, RuntimeError) as error:
            raise InputError(f"nnU-Net's check of dataset {dataset_id} failed: {error}") from error
        report(f"[2/6] plans: {request['planner']}; what nnU-Net says of them: {log}")
        with open(log, "w") as file, redirect_stdout(file):
            plan(dataset_id, str(plans_file), request)
    plans = load_json(str(plans_file))
    cases = _raw_cases(folder)
    preprocessed = folder / plans["configurations"][CONFIGURATION]["data_identifier"]
    missing = [
        case
        for case in cases
        if not all((preprocessed / f"{case}{end}").is_file() for end in (".b2nd", "_seg.b2nd", ".pkl"))
    ]
    if missing or overwrite:
        report(f"[3/6] preprocessing {len(cases)} cases")
        with open(log, "a") as file, redirect_stdout(file):
            preprocess_dataset(dataset_id, PLANS_NAME, configurations=[CONFIGURATION], num_processes=[processes])
    else:
        report(f"[3/6] preprocessing: kept {preprocessed}")
    return plans


def _raw_cases(folder: Path) -> dict[str, dict[str, Any]]:
    """nnU-Net's list of training cases: name -> {"images": [...], "label": ...}."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    return get_filenames_of_train_images_and_targets(str(nnunet_folder(RAW) / folder.name))


def _measure(
    folder: Path, plans: dict[str, Any], config: DiffTumorConfig, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Statistics of every organ in every case; returns per case its label values and organs."""
    settings = plans["configurations"][CONFIGURATION]
    intensity = CTIntensity.from_plans(plans, CONFIGURATION)
    store = StatisticsStore(folder, settings["data_identifier"])
    dataset = PooledDataset(str(folder / settings["data_identifier"]))
    organs = [vars(organ) for organ in config.organs]
    organs = [{key: list(v) if isinstance(v, tuple) else v for key, v in organ.items()} for organ in organs]
    report(f"[5/6] organ statistics of {len(dataset.identifiers)} cases")
    found = {}
    for case in tqdm(dataset.identifiers, unit="case", disable=None):
        path = store.folder / f"{case}.json"
        record = load_json(str(path)) if path.is_file() else {}
        newer = path.is_file() and path.stat().st_mtime >= dataset.path(case).stat().st_mtime
        there = all(store.path(case, name).is_file() for name in record.get("organs", ()))
        if record.get("measured_for") != organs or not newer or not there:
            data, seg, _, _ = dataset.load_case(case)
            labels = seg[:][0]
            values = [int(value) for value in np.unique(labels) if value > 0]
            spacing = tuple(float(value) for value in settings["spacing"])
            for organ in config.organs:
                store.path(case, organ.name).unlink(missing_ok=True)
            names = store.measure(case, intensity.to_hu(data[:][0]), labels, organs=config.organs, spacing_mm=spacing)
            record = {"measured_for": organs, "labels": values, "organs": names}
            write_json(path, record)
        found[case] = record
    return found


def _splits(
    path: Path,
    raw: Path,
    config: DiffTumorConfig,
    present: dict[str, dict[str, Any]],
    pools: HealthyPools,
    overwrite: bool,
) -> list[dict[str, Any]]:
    """Folds from the data; folds that the user made, in the raw or the preprocessed folder, are kept.

    Pools are trusted to be healthy only as far as they have no lesion; no case of theirs is ever a real one.
    """
    lesions = {value for organ in config.organs for value in (organ.tumor_label, *organ.avoid_labels)}
    usable = {case for case, record in present.items() if record["organs"] or lesions & set(record["labels"])}
    with_lesions = {case for case in usable if lesions & set(present[case]["labels"])}
    real, bases = with_lesions - set(pools.cases), usable - with_lesions
    existing = None
    for source in (raw / path.name, *([] if overwrite else [path])):
        if source.is_file():
            existing = load_json(str(source))
    if existing is not None and not any(split["train"] for split in existing):
        existing = None
    return make_splits(real, bases, existing=existing)


def _compare_axes(folder: Path, plans: dict[str, Any], pools: HealthyPools, report: Callable[[str], None]) -> None:
    """nnU-Net does not turn images: a network could tell the pools by their orientation."""
    if not pools.cases:
        return
    dataset = nnUNetDatasetBlosc2(str(folder / plans["configurations"][CONFIGURATION]["data_identifier"]))
    own = {axes_of(dataset.load_case(case)[3], plans["transpose_forward"]) for case in dataset.identifiers}
    others = pools.lying_otherwise(own)
    if others:
        report(
            f"      NOTE: {_some(others)} lie otherwise in their arrays than the dataset's own cases "
            f"({', '.join(sorted(own))}), and nnU-Net does not turn images: the network may learn the orientation "
            "instead of the tumors. Turn them when converting"
        )


def _make_validation_cases(
    folder: Path,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    config: DiffTumorConfig,
    splits: list[dict[str, Any]],
    pools: HealthyPools,
    overwrite: bool,
    report: Callable[[str], None],
) -> None:
    cases = sorted({case for split in splits for case in split["label_free_val"]})
    maker = ValidationCaseMaker(validation_folder(folder), plans, dataset_json=dataset_json, config=config)
    report(f"[6/6] synthetic validation cases for label-free training: {len(cases)}")
    files = {name: (case["images"], case["label"]) for name, case in _raw_cases(folder).items()}
    files |= {name: (case.images, case.label) for name, case in pools.cases.items()}
    for case in tqdm(cases, unit="case", disable=None):
        if (overwrite or not maker.is_made(case)) and not maker.make(case, *files[case]):
            report(f"      {case}: no tumor found room, it validates as a healthy case")


def _describe(organ: Organ) -> str:
    avoid = f", avoiding {list(organ.avoid_labels)}" if organ.avoid_labels else ""
    return f"{organ.name} {list(organ.organ_labels)} with tumor {organ.tumor_label}{avoid}"


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "") if names else "none"
