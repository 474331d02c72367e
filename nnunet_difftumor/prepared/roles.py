"""Which cases train, validate and serve as bases: nnU-Net's `splits_final.json` with two extra keys per fold.

`train` and `val` are real cases, and all that nnU-Net's own trainers see. `synthesis_bases` are the cases into which
tumors are put; `label_free_val` those of them that a label-free run of this fold holds out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_difftumor.errors import InputError


@dataclass(frozen=True)
class Roles:
    """Case names of one run, each sorted.

    Attributes:
        train: real cases to train on.
        validation: cases to validate on.
        bases: cases into which tumors are put.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    bases: tuple[str, ...]

    @property
    def healthy(self) -> tuple[str, ...]:
        """Bases without a real tumor."""
        return tuple(case for case in self.bases if case not in self.train)


def roles_with_real_cases(splits: Sequence[Mapping[str, Any]], fold: int | str, *, real_as_bases: bool) -> Roles:
    """Real cases train and validate as in nnU-Net; bases never enter validation.

    Args:
        splits: content of `splits_final.json`.
        fold: number, or "all" for every real case in training and validation.
        real_as_bases: whether the real training cases are bases too.

    Raises:
        InputError: if the fold does not exist, or there is no real case or no base.
    """
    chosen = _chosen(splits, fold)
    train, validation, bases = (_union(chosen, key) for key in ("train", "val", "synthesis_bases"))
    if fold == "all":
        train = validation = sorted({*train, *validation})
    if not train:
        raise InputError(
            f"splits_final.json, fold {fold}: no case has a real tumor to train on; "
            "use the trainer nnUNetTrainerDiffTumorLabelFree"
        )
    if real_as_bases:
        bases = sorted({*bases, *train})
    if not bases:
        raise InputError(
            f"splits_final.json, fold {fold}: there is no case into which tumors could be put (synthesis_bases is "
            "empty). Add healthy cases with organ labels and run `difftumor prepare` again (--healthy ID for a dataset "
            'of them), or set "real_cases_as_bases": true in difftumor.json'
        )
    return Roles(tuple(train), tuple(validation), tuple(bases))


def label_free_roles(splits: Sequence[Mapping[str, Any]], fold: int | str) -> Roles:
    """Only bases: some are held out for validation; a single base does both.

    Raises:
        InputError: if the fold does not exist, or there is no base.
    """
    chosen = _chosen(splits, fold)
    bases, held_out = _union(chosen, "synthesis_bases"), _union(chosen, "label_free_val")
    if not bases:
        raise InputError(
            f"splits_final.json, fold {fold}: there is no healthy case to put tumors into (synthesis_bases is empty). "
            "Add healthy cases with organ labels and run `difftumor prepare` again (--healthy ID for a dataset of them)"
        )
    training = bases if fold == "all" else sorted(set(bases) - set(held_out)) or bases
    return Roles((), tuple(held_out), tuple(training))


def _chosen(splits: Sequence[Mapping[str, Any]], fold: int | str) -> Sequence[Mapping[str, Any]]:
    if not all("synthesis_bases" in split for split in splits):
        raise InputError(
            'splits_final.json: the key "synthesis_bases" is missing; the folds were not written by `difftumor '
            "prepare`: run it first"
        )
    if fold == "all":
        return splits
    if int(fold) >= len(splits):
        raise InputError(f"splits_final.json: fold {fold} was asked for, but there are folds 0 to {len(splits) - 1}")
    return [splits[int(fold)]]


def _union(splits: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return sorted({case for split in splits for case in split[key]})
