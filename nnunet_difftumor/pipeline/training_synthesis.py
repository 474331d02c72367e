"""What a training run with synthetic tumors needs, found from the prepared dataset; the trainers connect it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_difftumor.checks.drawn import stale_bank, unfit_weights
from nnunet_difftumor.checks.finding import Finding
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.dataset import SyntheticTumorDataset
from nnunet_difftumor.pipeline.live.synthesis import LiveSynthesis
from nnunet_difftumor.pipeline.loader import SamplingPlan
from nnunet_difftumor.pipeline.source_description import describe_source, notes_on_organs
from nnunet_difftumor.pipeline.sources import TumorSource, make_source
from nnunet_difftumor.prepared.config import FILE_NAME, PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.grid import PreparedGrid
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_splits
from nnunet_difftumor.prepared.orientation import array_axes
from nnunet_difftumor.prepared.pools import PooledDataset
from nnunet_difftumor.prepared.roles import Roles
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.look.sample_shares import PUBLIC_CODE, SampleShares

# Enters the run seed, so that folds do not see the same random numbers.
_FOLD_ALL = 1_000


class TrainingSynthesis:
    """The synthetic side of one training run.

    Args:
        dataset_folder: `nnUNet_preprocessed/DatasetXXX_NAME`.
        plans: nnU-Net's plans.
        dataset_json: nnU-Net's dataset.json.
        configuration: name of the configuration.
        fold: number or "all".
        config: other settings than those of the dataset's difftumor.json.

    Raises:
        InputError: if the dataset was not prepared, or the configuration cannot be trained with synthetic tumors.
    """

    def __init__(
        self,
        dataset_folder: str | Path,
        plans: dict[str, Any],
        *,
        dataset_json: dict[str, Any],
        configuration: str,
        fold: int | str,
        config: DiffTumorConfig | None = None,
    ) -> None:
        self.dataset_folder = Path(dataset_folder)
        self.config = DiffTumorConfig.load(self.dataset_folder / FILE_NAME) if config is None else config
        self.grid = PreparedGrid.from_plans(plans, configuration)
        manager = PlansManager(plans)
        self.plans, self._configuration_name = plans, configuration
        self._configuration = manager.get_configuration(configuration)
        if len(self._configuration.patch_size) != 3:
            raise InputError(
                f"configuration {configuration}: synthetic tumors need a 3D configuration; train 3d_fullres"
            )
        if self._configuration.previous_stage_name is not None:
            raise InputError(
                f"configuration {configuration}: is the second stage of a cascade, whose first stage never saw the "
                "synthetic tumors; train 3d_fullres"
            )
        self.folder = self.dataset_folder / self._configuration.data_identifier
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: not found; `difftumor prepare` preprocesses and measures 3d_fullres alone: run it if "
                "you have not, and train 3d_fullres"
            )
        if infer_dataset_class(str(self.folder)) is not nnUNetDatasetBlosc2:
            raise InputError(f"{self.folder}: was preprocessed by an old nnU-Net; run `difftumor prepare` again")
        labels = manager.get_label_manager(dataset_json)
        self.regions = (
            tuple(tuple(r) if isinstance(r, list | tuple) else (r,) for r in labels.foreground_regions)
            if labels.has_regions
            else None
        )
        self.statistics = StatisticsStore(self.dataset_folder, self._configuration.data_identifier)
        self.tumor_labels = tuple(organ.tumor_label for organ in self.config.organs)
        self.run_seed = (self.config.seed, _FOLD_ALL if fold == "all" else int(fold))

    @cached_property
    def live(self) -> LiveSynthesis | None:
        """Of live tumors, if the settings ask for them.

        Raises:
            InputError: for weights that are missing or do not fit.
        """
        return LiveSynthesis(self.config) if self.config.needs_server else None

    def end(self) -> None:
        """Ends the synthesis server, if one was started."""
        # Not asked for before: then there is none, and asking could fail.
        live = vars(self).get("live")
        if live is not None:
            live.stop()

    def what_draws(self, roles: Callable[[], Roles]) -> list[Finding]:
        """What is wrong with the bank or the weights that the tumors come from; roles are needed for a bank only."""
        findings = unfit_weights(self.config, self.plans)
        if self.config.source == "bank":
            findings += self.stale_bank(Path(self.config.bank_folder), roles().bases)
        return findings

    def stale_bank(self, bank: Path, cases: Sequence[str]) -> list[Finding]:
        """Cases whose lesions in a bank were made from another version of them."""
        return stale_bank(bank, self.folder, cases, plans=self.plans, configuration=self._configuration_name)

    def splits(self) -> list[dict[str, Any]]:
        return read_splits(self.dataset_folder / "splits_final.json")

    def with_usable_bases(self, roles: Roles) -> Roles:
        """Leaves out bases into which no tumor can be put, because the organs were not found in them.

        Raises:
            InputError: if none is left.
        """
        if self.config.source == "bank":
            return roles
        known = set().union(*(self.statistics.cases(organ.name) for organ in self.config.organs))
        usable = tuple(case for case in roles.bases if case in known)
        if not usable:
            raise InputError(
                f"{self.statistics.folder}: none of the {len(roles.bases)} bases has statistics of "
                f"{', '.join(organ.name for organ in self.config.organs)}; their organ labels are missing, or "
                f"`difftumor prepare` was not run for these plans ({PLANS_NAME}), or the configuration is not "
                "3d_fullres, which alone is measured"
            )
        return replace(roles, bases=usable)

    def dataset(self, roles: Roles) -> SyntheticTumorDataset:
        """The training cases, with tumors on bases."""
        return SyntheticTumorDataset(
            str(self.folder),
            sorted({*roles.train, *roles.bases}),
            source=self.source(),
            grid=self.grid,
        )

    def source(self, config: DiffTumorConfig | None = None) -> TumorSource:
        """Makes the tumors.

        Args:
            config: other settings than the run's, which ask for nothing that these do not.
        """
        config = config or self.config
        live = None if self.live is None else partial(self.live.source, config, self.statistics)
        return make_source(config, self.statistics, live=live)

    def plan(self, roles: Roles, *, rank: int, first_batch: int, batches_per_epoch: int = 250) -> SamplingPlan:
        """Which batch shows what."""
        return SamplingPlan(
            run_seed=self.run_seed,
            rank=rank,
            first_batch=first_batch,
            workers=max(1, get_allowed_n_proc_DA()),
            shares=self.shares(roles),
            real_cases=roles.train,
            bases=roles.bases,
            healthy=roles.healthy,
            batches_per_epoch=batches_per_epoch,
            regions=self.regions,
        )

    def shares(self, roles: Roles) -> SampleShares:
        """Of what the samples of a run show.

        Raises:
            InputError: healthy samples are asked for, and no case is healthy.
        """
        return self.config.shares_for(real=len(roles.train), healthy=len(roles.healthy))

    def mirror_axes(self, cases: Sequence[str]) -> tuple[int, ...]:
        """Array axes along which training mirrors."""
        dataset = PooledDataset(str(self.folder), cases)
        properties = ((case, dataset.load_case(case)[3]) for case in cases)
        return array_axes(self.config.mirror_axes, properties, self.grid.transpose_forward)

    def direction(self, case: str) -> np.ndarray | None:
        """Of a preprocessed case's array, as in `Volume`."""
        return self.grid.direction(PooledDataset(str(self.folder), [case]).load_case(case)[3])

    def describe(self, roles: Roles) -> list[str]:
        """Lines for the beginning of the training log."""
        config = self.config
        organs = ", ".join(f"{organ.name} (tumor label {organ.tumor_label})" for organ in config.organs)
        return [
            f"Synthetic tumors: {describe_source(config, self.live)}; preset {config.preset}; organs: {organs}",
            f"{len(roles.train)} real training cases, {len(roles.bases)} bases, {len(roles.validation)} validation "
            f"cases; shares of samples asked: {self.shares(roles).in_words()}"
            + (" (as DiffTumor's public code)" if config.shares == PUBLIC_CODE else ""),
            *(f"NOTE: {note}" for note in notes_on_organs(config, self.live)),
        ]
