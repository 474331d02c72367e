"""Folds and roles: which cases are real, which are bases, and who validates whom."""

from collections.abc import Collection, Sequence
from typing import Any

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_difftumor.errors import InputError

# nnU-Net's own numbers (do_split): with real cases only, the folds are the ones it would make itself.
_FOLDS, _SEED = 5, 12345
_MOST_LABEL_FREE_VALIDATION_CASES = 20


def make_splits(
    real: Collection[str], bases: Collection[str], *, existing: Sequence[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Folds for `splits_final.json` with the keys that `pipeline.roles` reads.

    Args:
        real: cases with real tumors.
        bases: cases without; never in `train` or `val`.
        existing: folds that the user made; their real cases stay where they are.

    Raises:
        InputError: if there is neither a real case nor a base, or existing folds name a case that does not exist.
    """
    real, bases = sorted(real), sorted(bases)
    if not real and not bases:
        raise InputError("no case has an organ of difftumor.json; check the organ labels")
    if existing is not None:
        known = {*real, *bases}
        for number, split in enumerate(existing):
            unknown = sorted({*split["train"], *split["val"]} - known)
            if unknown:
                raise InputError(
                    f"splits_final.json: fold {number} names cases that are not in the dataset, or have no organ: "
                    f"{unknown}; correct or delete the file"
                )
        folds = [{key: [case for case in split[key] if case in real] for key in ("train", "val")} for split in existing]
    else:
        folds = _folds(real)
    held_out = [fold["val"] for fold in _folds(bases)]
    if not real:
        folds = [{"train": [], "val": []} for _ in held_out]
    return [
        {
            **fold,
            "synthesis_bases": bases,
            "label_free_val": held_out[i % len(held_out)][:_MOST_LABEL_FREE_VALIDATION_CASES] if held_out else [],
        }
        for i, fold in enumerate(folds)
    ]


def _folds(cases: Sequence[str]) -> list[dict[str, list[str]]]:
    if len(cases) < 2:
        # A single case has to do both.
        return [{"train": list(cases), "val": list(cases)}] if cases else []
    splits = generate_crossval_split(list(cases), seed=_SEED, n_splits=min(_FOLDS, len(cases)))
    return [{key: [str(case) for case in split[key]] for key in ("train", "val")} for split in splits]
