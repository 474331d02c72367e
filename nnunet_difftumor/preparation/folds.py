"""Folds and roles: which cases are real, which are bases, and who validates whom."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_splits

# nnU-Net's own numbers (do_split): with real cases only, the folds are the ones it would make itself.
_FOLDS, _SEED = 5, 12345
_MOST_LABEL_FREE_VALIDATION_CASES = 20
_ROLES = ("train", "val", "synthesis_bases", "left_out")


def make_splits(
    real: Collection[str],
    bases: Collection[str],
    *,
    existing: Sequence[dict[str, Any]] | None = None,
    unusable: Collection[str] = (),
    where: str | Path = "splits_final.json",
    add: bool = False,
) -> list[dict[str, Any]]:
    """Folds for `splits_final.json` with the keys that `pipeline.roles` reads.

    Args:
        real: cases with real tumors.
        bases: cases without; never in `train` or `val`.
        existing: folds that are there; their real cases stay where they are.
        unusable: cases of the dataset without any organ, which are taken out of existing folds.
        where: the file with the existing folds, for errors.
        add: whether real cases that existing folds do not know yet get a place in them: each validates one fold and
            trains in the others, or trains in all of them where the folds do not share out their cases so. Those that
            the folds know (`left_out`) were left out by the user.

    Raises:
        InputError: if there is neither a real case nor a base, or existing folds name a case that does not exist.
    """
    real, bases = sorted(real), sorted(bases)
    if not real and not bases:
        raise InputError("no case has an organ of difftumor.json; check the organ labels")
    if existing is not None:
        check_known(existing, {*real, *bases, *unusable}, where=where)
        folds = [{key: [case for case in split[key] if case in real] for key in ("train", "val")} for split in existing]
        if add:
            remembered = {case for split in existing for key in _ROLES for case in split.get(key, ())}
            was_base = {case for split in existing for case in split.get("synthesis_bases", ())}
            placed = {case for fold in folds for case in (*fold["train"], *fold["val"])}
            folds = _with_more(folds, sorted((set(real) - placed) & ((set(real) - remembered) | was_base)))
    else:
        folds = _folds(real)
    held_out = [fold["val"] for fold in _folds(bases)]
    if not real:
        folds = [{"train": [], "val": []} for _ in held_out]
    placed = {case for fold in folds for case in (*fold["train"], *fold["val"])}
    left_out = sorted({*real, *unusable} - placed)
    return [
        {
            **fold,
            "synthesis_bases": bases,
            "label_free_val": held_out[i % len(held_out)][:_MOST_LABEL_FREE_VALIDATION_CASES] if held_out else [],
            "left_out": left_out,
        }
        for i, fold in enumerate(folds)
    ]


def check_known(existing: Sequence[dict[str, Any]], cases: Collection[str], *, where: str | Path) -> None:
    """Refuses folds with cases that the dataset does not have.

    Args:
        existing: folds.
        cases: of the dataset.
        where: the file with the folds, for the error.

    Raises:
        InputError: naming the cases.
    """
    for number, split in enumerate(existing):
        unknown = sorted({*split["train"], *split["val"]} - set(cases))
        if unknown:
            raise InputError(
                f"{where}: fold {number} names cases that are not in the dataset: {unknown}; correct or delete the file"
            )


def drop_from_folds(path: Path, cases: Collection[str]) -> None:
    """Takes cases out of every role of the folds in a file, if there is one."""
    if path.is_file():
        folds = read_splits(path)
        write_json(
            path,
            [
                {
                    key: [case for case in value if case not in cases] if isinstance(value, list) else value
                    for key, value in fold.items()
                }
                for fold in folds
            ],
        )


def _with_more(folds: list[dict[str, list[str]]], more: Sequence[str]) -> list[dict[str, list[str]]]:
    before = [case for fold in folds for case in fold["val"]]
    shared_out = len(set(before)) == len(before) and all(
        {*fold["train"], *fold["val"]} == set(before) and not set(fold["train"]) & set(fold["val"]) for fold in folds
    )
    if more and len(set(before)) < 2:  # one case that does both, or none: nothing that is worth to be kept
        return _folds(sorted({*before, *(case for fold in folds for case in fold["train"]), *more}))
    folds = [{key: list(fold[key]) for key in ("train", "val")} for fold in folds]
    for case in more:
        validated_in = min(folds, key=lambda fold: len(fold["val"])) if shared_out else None
        for fold in folds:
            fold["val" if fold is validated_in else "train"].append(case)
    return [{key: sorted(cases) for key, cases in fold.items()} for fold in folds] if more else folds


def _folds(cases: Sequence[str]) -> list[dict[str, list[str]]]:
    if len(cases) < 2:
        # A single case has to do both.
        return [{"train": list(cases), "val": list(cases)}] if cases else []
    splits = generate_crossval_split(list(cases), seed=_SEED, n_splits=min(_FOLDS, len(cases)))
    return [{key: [str(case) for case in split[key]] for key in ("train", "val")} for split in splits]
