"""Healthy pools: the cases of other raw datasets become bases of a dataset, preprocessed with its plans."""

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tqdm import tqdm

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.preparation.plans import CONFIGURATION
from nnunet_difftumor.prepared.label_free_validation import validation_folder
from nnunet_difftumor.prepared.orientation import axis_codes
from nnunet_difftumor.prepared.pools import pools_folder

_ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")
# What of a configuration does not enter the preprocessed cases.
_NOT_PREPROCESSING = ("architecture", "batch_size", "batch_dice", "data_identifier", "median_image_size_in_voxels")


@dataclass(frozen=True)
class PoolCase:
    """A case of a pool.

    Attributes:
        name: in the dataset that it becomes a base of.
        images, label: raw files.
    """

    name: str
    images: tuple[str, ...]
    label: str


class HealthyPools:
    """The pools of one dataset: those that were added before, and new ones.

    Args:
        folder: `nnUNet_preprocessed/DatasetXXX_NAME` of the dataset.
        raw: `nnUNet_raw/DatasetXXX_NAME` of the dataset.
        pools: raw folders of pools to add.
        overwrite: forget the pools that were added before.

    Raises:
        InputError: if a pool is missing or empty, or its labels or channels are not those of the dataset.
    """

    def __init__(self, folder: Path, raw: Path, *, pools: Sequence[Path], overwrite: bool) -> None:
        self.folder, self._raw, self._overwrite = pools_folder(folder), raw, overwrite
        self._specs = validation_folder(folder) / "specs"
        self._list = self.folder / "pools.json"
        before = load_json(str(self._list)) if self._list.is_file() and not overwrite else []
        self.names = sorted({*before, *(pool.name for pool in pools)})
        self.cases = {case.name: case for name in self.names for case in self._cases(raw.parent / name)}

    def preprocess(self, plans: Mapping[str, Any], *, processes: int, report: Callable[[str], None]) -> None:
        """Preprocesses what is new or has changed, and removes what is gone.

        Raises:
            InputError: naming the case that cannot be preprocessed.
        """
        if self._overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
        if not self.names:
            return
        # First, so that an interrupted call resumes with the same pools.
        write_json(self._list, self.names)
        final = self.folder / plans["configurations"][CONFIGURATION]["data_identifier"]
        final.mkdir(parents=True, exist_ok=True)
        there = {path.stem for path in self._record("").parent.glob("*.json")}
        for name in {*there, *nnUNetDatasetBlosc2.get_identifiers(str(final))} - set(self.cases):
            self._forget(name, final)
        key = _plans_key(plans)
        sources = {name: {"plans": key, "files": _states(case)} for name, case in self.cases.items()}
        missing = [case for name, case in self.cases.items() if not self._is_made(name, sources[name], final)]
        count = f"{len(self.cases)} cases, {len(missing)} of them to preprocess"
        report(f"      healthy pools {', '.join(self.names)}: {count}")
        for case in missing:
            self._forget(case.name, final)
        if missing:
            jobs = [(case, final, self._record(case.name), sources[case.name]) for case in missing]
            _preprocess_all(jobs, dict(plans), load_json(str(self._raw / "dataset.json")), processes)
        shutil.rmtree(_unfinished(final), ignore_errors=True)

    def lying_otherwise(self, own: Collection[str]) -> list[str]:
        """The preprocessed cases whose axes lead to none of `own` (see `orientation.axis_codes`)."""
        return [name for name in self.cases if load_json(str(self._record(name)))["axes"] not in own]

    def _cases(self, pool: Path) -> list[PoolCase]:
        if not (pool / "dataset.json").is_file():
            raise InputError(
                f"{pool}: not found, but its cases are bases of {self._raw.name}; put it back, or start again without "
                "it: `overwrite`"
            )
        if pool == self._raw:
            raise InputError(f"`healthy`: {pool.name} is the dataset itself; its healthy cases are bases already")
        own, theirs = (load_json(str(folder / "dataset.json")) for folder in (self._raw, pool))
        for key, what in (("labels", _labels), ("channel_names", _channels)):
            if what(own) != what(theirs):
                expected = f"expected those of {self._raw.name}: {what(own)}"
                raise InputError(f"{pool / 'dataset.json'}: {key} are {what(theirs)}, {expected}")
        files = get_filenames_of_train_images_and_targets(str(pool), theirs)
        if not files:
            raise InputError(f"{pool}: has no cases")
        taken = {f"{pool.name}_{case}" for case in files} & set(
            get_filenames_of_train_images_and_targets(str(self._raw), own)
        )
        if taken:
            raise InputError(f"{self._raw}: has cases with the names that cases of {pool.name} get: {sorted(taken)}")
        return [PoolCase(f"{pool.name}_{case}", tuple(f["images"]), f["label"]) for case, f in files.items()]

    def _record(self, name: str) -> Path:
        return self.folder / "made_from" / f"{name}.json"

    def _is_made(self, name: str, source: Mapping[str, Any], final: Path) -> bool:
        if not self._record(name).is_file() or not all((final / f"{name}{end}").is_file() for end in _ENDINGS):
            return False
        record = load_json(str(self._record(name)))
        return all(record.get(key) == value for key, value in source.items())

    def _forget(self, name: str, final: Path) -> None:
        """The record first: what it speaks of is then made again after an interruption."""
        validation_case = self._specs / f"{name}.json"
        for path in (self._record(name), validation_case, *(final / f"{name}{end}" for end in _ENDINGS)):
            path.unlink(missing_ok=True)


def axes_of(properties: Mapping[str, Any], transpose_forward: Sequence[int]) -> str:
    """Where a preprocessed array's axes lead to; "unknown" for readers without geometry."""
    try:
        return axis_codes(properties, transpose_forward)
    except InputError:
        return "unknown"


def _preprocess_all(jobs: Sequence[tuple], plans: dict, dataset_json: dict, processes: int) -> None:
    # Spawned, as nnU-Net does: its libraries have threads, which a fork would not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), context) as executor:
        waiting = {executor.submit(_preprocess, *job, plans, dataset_json): job[0] for job in jobs}
        try:
            for future in tqdm(as_completed(waiting), total=len(waiting), unit="case", disable=None):
                _check(future, waiting[future])
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def _preprocess(
    case: PoolCase, final: Path, record: Path, source: Mapping[str, Any], plans: dict, dataset_json: dict
) -> None:
    """nnU-Net's preprocessing of one case; the files appear when all are written, and the record last."""
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    found: dict[str, Any] = {}

    class ObservedPreprocessor(configuration.preprocessor_class):
        def run_case_npy(self, data, seg, properties, *args):
            found["axes"] = axes_of(properties, manager.transpose_forward)
            found["unknown"] = sorted({int(value) for value in np.unique(seg)} - _declared(dataset_json))
            return super().run_case_npy(data, seg, properties, *args)

    unfinished = _unfinished(final) / case.name
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    ObservedPreprocessor(verbose=False).run_case_save(
        str(unfinished / case.name), list(case.images), case.label, manager, configuration, dataset_json
    )
    if found["unknown"]:
        raise InputError(f"{case.label}: has label values {found['unknown']} that dataset.json does not declare")
    for file in unfinished.iterdir():
        file.replace(final / file.name)
    write_json(record, {**source, "axes": found["axes"]})


def _check(future: Future, case: PoolCase) -> None:
    try:
        future.result()
    except InputError:
        raise
    except BrokenProcessPool as error:
        raise InputError(
            "a process was killed while it preprocessed the healthy pools, most likely for want of memory; give fewer "
            "processes (`processes` 1), the same command resumes"
        ) from error
    except Exception as error:
        raise InputError(f"{case.images[0]}: nnU-Net cannot preprocess this case ({error!r})") from error


def _unfinished(final: Path) -> Path:
    return final.parent / "unfinished"


def _plans_key(plans: Mapping[str, Any]) -> str:
    """Changes with whatever changes the preprocessed cases."""
    configuration = plans["configurations"][CONFIGURATION]
    parts = [
        {key: value for key, value in configuration.items() if key not in _NOT_PREPROCESSING},
        *(plans[key] for key in ("foreground_intensity_properties_per_channel", "transpose_forward")),
        plans["image_reader_writer"],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _states(case: PoolCase) -> list[list]:
    """Name, size and time of change of the raw files."""
    files = [Path(file) for file in (*case.images, case.label)]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _labels(dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: sorted(map(int, value)) if isinstance(value, list | tuple) else int(value)
        for name, value in dataset_json["labels"].items()
    }


def _channels(dataset_json: Mapping[str, Any]) -> list[str]:
    return [str(name).casefold() for name in dataset_json.get("channel_names", dataset_json.get("modality")).values()]


def _declared(dataset_json: Mapping[str, Any]) -> set[int]:
    values = _labels(dataset_json).values()
    return {label for value in values for label in (value if isinstance(value, list) else [value])}
