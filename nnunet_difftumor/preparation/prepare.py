"""`prepare`: nnU-Net's fingerprint, plans and preprocessing, then statistics, folds, settings and validation cases."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.configuration import default_num_processes
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import some
from nnunet_difftumor.files import only_writer, write_json
from nnunet_difftumor.preparation.datasets import check_channel, dataset_folders
from nnunet_difftumor.preparation.dry_run import foretell_cases, foretell_room
from nnunet_difftumor.preparation.folds import check_known, make_splits
from nnunet_difftumor.preparation.healthy import HealthyPools
from nnunet_difftumor.preparation.preprocessing.plans import CONFIGURATION
from nnunet_difftumor.preparation.preprocessing.preprocess import Preprocessing
from nnunet_difftumor.preparation.preprocessing.preprocessed_cases import axes_of
from nnunet_difftumor.preparation.settings import decided_by_recipe, settings_of
from nnunet_difftumor.preparation.validation_cases import ValidationCaseMaker
from nnunet_difftumor.prepared.config import FILE_NAME, PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.enhancement import unenhanced_notes
from nnunet_difftumor.prepared.grid import PreparedGrid
from nnunet_difftumor.prepared.label_free_validation import validation_folder
from nnunet_difftumor.prepared.made_from import records
from nnunet_difftumor.prepared.made_from.raw_files import check_case_list, raw_cases
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_splits
from nnunet_difftumor.prepared.nnunet.preprocessed_dataset import PreprocessedDataset
from nnunet_difftumor.prepared.pools import PooledDataset
from nnunet_difftumor.prepared.recipes import RECIPES, REQUEST_KEY
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.look.organ_names import notes_on_organ
from nnunet_difftumor.synthesis.organ import Organ

_PLANNER = "nnUNetPlannerResEncM"


def prepare(
    dataset_id: int,
    *,
    planner: str | None = None,
    spacing_mm: Sequence[float] | None = None,
    patch_size: Sequence[int] | None = None,
    organ: Sequence[Organ | str] | None = None,
    preset: str | None = None,
    recipe: str | None = None,
    healthy: Sequence[int] = (),
    processes: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Prepares an nnU-Net raw dataset for training with synthetic tumors.

    What is there already and still right is kept, so that an interrupted call resumes: plans for the same request,
    preprocessed cases made from the same raw files, statistics of the same organs, validation cases with the same
    settings, and a difftumor.json that the user may have edited. A case whose raw files have changed is made again, one
    that is new is added, and one that is gone is removed everywhere, each with a line; so is one whose preprocessed
    files are damaged. What everything was made from is written to `difftumor_made_from/`.

    Args:
        dataset_id: of a dataset in nnUNet_raw, with one CT channel and organ labels.
        planner: class name of any nnU-Net planner; None: that of plans that are there, or nnUNetPlannerResEncM.
        spacing_mm: target spacing (z, y, x) instead of the planner's; None: that of plans that are there, if any.
        patch_size: voxels (z, y, x) instead of the planner's, fitted to what the network can divide; None: that of
            plans that are there, if any.
        organ: organ and tumor label pairs, as `Organ` or as text such as "liver=1:2" (`parse_organ`), instead of those
            found in dataset.json; those of a difftumor.json that is there, if any.
        preset: of the tumors' distributions, instead of "realistic"; that of a difftumor.json that is there, if any.
        recipe: a paper's, by its name in `RECIPES`: voxel size, patch, window, batch, preset and shares; None: that of
            plans that are there, or nnU-Net's own.
        healthy: datasets in nnUNet_raw with the same labels, all of whose cases become bases: tumors are put into them,
            and they never train or validate as they are with real cases. Those of earlier calls stay.
        processes: for nnU-Net's preprocessing; None: as many as nnUNet_def_n_proc says (8 unless set), at most one
            per core.
        overwrite: start again: plan and preprocess again, and replace difftumor.json, the folds, and healthy pools of
            earlier calls.
        dry_run: only say what would be done, as far as headers and what is there show it; nothing is written.
        report: gets a line per step.

    Returns:
        Path of difftumor.json.

    Raises:
        InputError: for whatever is missing or does not fit in the dataset.
    """
    if recipe is not None:
        spacing_mm, patch_size, preset = decided_by_recipe(recipe, spacing_mm, patch_size, preset)
    raw, folder = dataset_folders(dataset_id)
    with nullcontext() if dry_run else only_writer(folder):
        dataset_json = read_dataset_json(raw / "dataset.json")
        check_channel(raw, dataset_json)
        config_path = folder / FILE_NAME
        config, said = settings_of(
            config_path, dataset_json, organ=organ, preset=preset, recipe=recipe, overwrite=overwrite
        )
        cases = raw_cases(raw, dataset_json)
        for note in check_case_list(raw, dataset_json, cases):
            report(f"NOTE: {note}")
        pool_folders = [dataset_folders(pool, argument="healthy")[0] for pool in healthy]
        own = Preprocessing(
            dataset_id=dataset_id,
            raw=raw,
            folder=folder,
            dataset_json=dataset_json,
            cases=cases,
            processes=processes or min(default_num_processes, os.cpu_count() or 1),
            overwrite=overwrite,
            report=report,
        )
        pools = HealthyPools(folder, raw, pools=pool_folders, overwrite=overwrite)
        preparation = _Preparation(own=own, pools=pools, config=config)
        request = {
            "planner": planner,
            "spacing_mm": [float(value) for value in spacing_mm] if spacing_mm else None,
            "patch_size": [int(value) for value in patch_size] if patch_size else None,
            "recipe": recipe,
        }
        if dry_run:
            preparation.say_what_would_be_done(request, said)
            return config_path
        preparation.plan_and_preprocess(request)
        preparation.say_settings(said)
        splits = preparation.write_splits(preparation.measure())
        preparation.compare_axes()
        preparation.note_unenhanced(splits)
        preparation.make_validation_cases(splits)
        preparation.write_record()
        # Last: trainers take this file as the sign that the dataset is prepared.
        config.save(config_path)
        report(f"prepared: {config_path}\n{_next_commands(dataset_id, splits, own.plans)}")
        return config_path


def _next_commands(dataset_id: int, splits: Sequence[dict[str, Any]], plans: Mapping[str, Any]) -> str:
    recipe = RECIPES.get(plans[REQUEST_KEY].get("recipe"))
    if recipe is not None:
        trainer = recipe.trainer
    else:
        trainer = "nnUNetTrainerDiffTumor" if _real_cases(splits) else "nnUNetTrainerDiffTumorLabelFree"
    # nnU-Net takes CUDA unless told otherwise.
    device = "" if torch.cuda.is_available() else " -device cpu"
    model = f"-tr {trainer} -p {PLANS_NAME}{device}"
    lines = [
        f"look at: difftumor preview -d {dataset_id}",
        f"train with: nnUNetv2_train {dataset_id} {CONFIGURATION} 0 {model}",
    ]
    if recipe is not None:
        where = f"-i IN -o OUT -d {dataset_id} -c {CONFIGURATION} -f 0"
        lines.append(f"predict with: nnUNetv2_predict {where} {model} -step_size {recipe.tile_step:g}")
    return "\n".join(lines)


@dataclass(kw_only=True)
class _Preparation:
    """One call of `prepare`: what it works on, and its steps.

    Attributes:
        own: the dataset's own plans and preprocessed cases.
        pools: healthy pools.
        config: the settings.
    """

    own: Preprocessing
    pools: HealthyPools
    config: DiffTumorConfig

    @property
    def report(self) -> Callable[[str], None]:
        """Gets a line per step."""
        return self.own.report

    @property
    def folder(self) -> Path:
        """Of the preprocessed dataset."""
        return self.own.folder

    @cached_property
    def statistics(self) -> StatisticsStore:
        return StatisticsStore(self.folder, self.own.cases_folder.name)

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of the cases, once they are preprocessed: what they were made from."""
        return {name: record.version for name, record in records.read_case_records(self.folder).items()}

    def plan_and_preprocess(self, request: dict[str, Any]) -> None:
        """nnU-Net's fingerprint, plans and preprocessing, of the dataset and of its healthy pools.

        Raises:
            InputError: if the plans that are there were made for another request, or nnU-Net refuses the dataset.
        """
        own = self.own
        own.run(request)
        self.pools.preprocess(own.plans, hashes=own.hashes, processes=own.processes, report=self.report)
        own.hashes.save()

    def say_what_would_be_done(self, request: dict[str, Any], said: str) -> None:
        """Instead of all other steps; nothing is written.

        Args:
            request: as `plan_and_preprocess` takes it.
            said: of the settings.

        Raises:
            InputError: as the other steps, as far as headers, settings and what is there show it.
        """
        new = self.own.new_request(request)
        made = pooled = None
        if new is None:
            self.own.say_kept_plans()
            made = self.own.made
            pooled = self.pools.made(self.own.plans, hashes=self.own.hashes)
        else:
            asked = {"voxels of": new["spacing_mm"], "patches of": new["patch_size"], "recipe": new["recipe"]}
            words = [new["planner"], *(f"{key} {value}" for key, value in asked.items() if value is not None)]
            self.report(
                f"[1/6] fingerprint: would be extracted from {len(self.own.cases)} cases\n"
                f"[2/6] plans: {self.own.plans_file} would be made by {', '.join(words)}"
            )
        foretell_cases("[3/6] preprocessing", self.own.cases, made, report=self.report)
        if self.pools.names:
            what = f"      healthy pools {', '.join(self.pools.names)}"
            foretell_cases(what, self.pools.cases, pooled, report=self.report)
        settings = self.folder / FILE_NAME
        kept = settings.is_file() and not self.own.overwrite
        self.say_settings(said if kept else f"{settings} would be made: {said}")
        source, existing = self._existing_folds()
        if existing is not None and source.parent == self.own.raw:
            check_known(existing, {*self.own.cases, *self.pools.cases}, where=source)
        folds = f"of {source} would be kept" if existing is not None else "would be made from what the label maps hold"
        self.report(
            f"[5/6] organ statistics would be measured; folds {folds}\n"
            "[6/6] validation cases would follow from the folds\n"
            f"{foretell_room({**self.own.cases, **self.pools.cases}, self.folder)}. Dry run: nothing was written, and "
            "no voxel was looked at"
        )

    def say_settings(self, said: str) -> None:
        """What the settings are, and where a tumor will not be like those of its organ."""
        self.report(f"[4/6] settings: {said}")
        for note in (note for organ in self.config.organs for note in notes_on_organ(organ, self.config.preset)):
            self.report(f"      NOTE: {note}")

    def write_record(self) -> None:
        """Says that everything is made, and from what."""
        self.own.hashes.save()
        records.write_dataset_record(
            self.folder,
            records.DatasetRecord(
                difftumor=__version__,
                nnunetv2=version("nnunetv2"),
                plans=records.preprocessing_key(self.own.plans, CONFIGURATION),
                window_hu=records.window_hu(self.own.plans),
                organs=[organ.to_dict() for organ in self.config.organs],
                labels=self.own.dataset_json["labels"],
                pools=self.pools.names,
            ),
        )

    def measure(self) -> dict[str, dict[str, Any]]:
        """Statistics of every organ in every case; returns per case its label values and organs."""
        grid = PreparedGrid.from_plans(self.own.plans, CONFIGURATION)
        store, dataset = self.statistics, PooledDataset(str(self.own.cases_folder))
        organs = [organ.to_dict() for organ in self.config.organs]
        self.report(f"[5/6] organ statistics of {len(dataset.identifiers)} cases")
        found = {}
        for case in tqdm(dataset.identifiers, unit="case", disable=None):
            measured_for = {"case": self.versions[case], "organs": organs}
            record = store.read_record(case)
            if record.get("measured_for") != measured_for or not store.are_readable(case, record["organs"]):
                data, seg, _, _ = dataset.load_case(case)
                labels, hu = seg[:][0], grid.intensity.to_hu(data[:][0])
                values = [int(value) for value in np.unique(labels) if value > 0]
                store.forget(case)
                names = store.measure(case, hu, labels, organs=self.config.organs, spacing_mm=grid.spacing_mm)
                record = {"measured_for": measured_for, "labels": values, "organs": names}
                store.write_record(case, record)
            found[case] = record
        for case in store.recorded() - set(found):
            store.forget(case)
        return found

    def write_splits(self, present: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Folds from the data, written to splits_final.json; those that the user made, in either folder, are kept.

        Pools are trusted to be healthy only as far as they have no lesion; no case of theirs is ever a real one.

        Args:
            present: as `measure` gives it.
        """
        lesions = {value for organ in self.config.organs for value in (organ.tumor_label, *organ.avoid_labels)}
        usable = {case for case, record in present.items() if record["organs"] or lesions & set(record["labels"])}
        with_lesions = {case for case in usable if lesions & set(present[case]["labels"])}
        path = self.folder / "splits_final.json"
        source, existing = self._existing_folds()
        splits = make_splits(
            with_lesions - set(self.pools.cases),
            usable - with_lesions,
            existing=existing,
            unusable=set(present) - usable,
            where=source,
            # Folds without bases were made by the user or by nnU-Net, and are left as they are.
            add=existing is not None and source == path and all("synthesis_bases" in split for split in existing),
        )
        write_json(path, splits)
        real, bases = _real_cases(splits), splits[0]["synthesis_bases"]
        self.report(
            f"      {len(splits)} folds; {len(real)} real tumor cases: {some(real)}; {len(bases)} bases: {some(bases)}"
        )
        if without_fold := [case for case in splits[0]["left_out"] if case in with_lesions]:
            self.report(f"      in no fold, and never trained: {some(without_fold)}; add them to {source}")
        if neither := sorted(set(present) - (with_lesions - set(self.pools.cases)) - set(bases)):
            self.report(
                "      not used, without any organ of difftumor.json, or with a lesion in a healthy pool: "
                f"{some(neither)}"
            )
        return splits

    def _existing_folds(self) -> tuple[Path, list[dict[str, Any]] | None]:
        """Where folds are, or would be, and those that are kept."""
        path, users, existing = self.folder / "splits_final.json", self.own.raw / "splits_final.json", None
        source = users if users.is_file() else path
        if source.is_file() and not (self.own.overwrite and source == path):
            existing = read_splits(source)
        if existing is not None and not any(split["train"] for split in existing):
            existing = None
        return source, existing

    def compare_axes(self) -> None:
        """nnU-Net does not turn images: a network could tell the pools by their orientation."""
        if not self.pools.cases:
            return
        dataset = PreprocessedDataset(str(self.own.cases_folder))
        own = {axes_of(dataset.load_case(case)[3], self.own.plans["transpose_forward"]) for case in dataset.identifiers}
        others = self.pools.lying_otherwise(own)
        if others:
            self.report(
                f"      NOTE: {some(others)} lie otherwise in their arrays than the dataset's own cases "
                f"({', '.join(sorted(own))}), and nnU-Net does not turn images: the network may learn the orientation "
                "instead of the tumors. Turn them when converting"
            )

    def note_unenhanced(self, splits: list[dict[str, Any]]) -> None:
        """Says in which bases tumors will be hard to see."""
        more = _real_cases(splits) if self.config.real_cases_as_bases else []
        for note in unenhanced_notes(self.config, self.statistics, [*splits[0]["synthesis_bases"], *more]):
            self.report(f"      NOTE: {note}")

    def make_validation_cases(self, splits: list[dict[str, Any]]) -> None:
        """The held-out cases of label-free training, with fixed synthetic tumors."""
        cases = sorted({case for split in splits for case in split["label_free_val"]})
        folder = validation_folder(self.folder)
        maker = ValidationCaseMaker(folder, self.own.plans, dataset_json=self.own.dataset_json, config=self.config)
        self.report(f"[6/6] synthetic validation cases for label-free training: {len(cases)}")
        files = {**self.own.cases, **self.pools.cases}
        for case in tqdm(cases, unit="case", disable=None):
            if not self.own.overwrite and maker.is_made(case, self.versions[case]):
                continue
            if not maker.make(case, self.versions[case], files[case]):
                self.report(f"      {case}: no tumor found room, it validates as a healthy case")


def _real_cases(splits: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({case for split in splits for key in ("train", "val") for case in split[key]})
