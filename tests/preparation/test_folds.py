"""Folds: those of nnU-Net for real cases, bases beside them."""

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.folds import make_splits

REAL = [f"real_{i:02d}" for i in range(11)]
BASES = [f"base_{i:02d}" for i in range(7)]


def test_real_cases_get_the_folds_of_stock_nnunet():
    expected = generate_crossval_split(REAL, seed=12345, n_splits=5)
    splits = make_splits(REAL, BASES)
    assert [(s["train"], s["val"]) for s in splits] == [(list(s["train"]), list(s["val"])) for s in expected]


def test_bases_are_in_every_fold_and_never_validate_real_runs():
    for split in make_splits(REAL, BASES):
        assert split["synthesis_bases"] == BASES
        assert not set(BASES) & {*split["train"], *split["val"]}


def test_label_free_folds_hold_out_every_base_once():
    held_out = [case for split in make_splits(REAL, BASES) for case in split["label_free_val"]]
    assert sorted(held_out) == BASES


def test_without_real_cases_the_folds_are_those_of_the_bases():
    splits = make_splits([], BASES)
    assert len(splits) == 5 and all(split["train"] == split["val"] == [] for split in splits)


@pytest.mark.parametrize(("count", "folds"), [(1, 1), (2, 2), (4, 4), (5, 5)])
def test_few_real_cases_make_few_folds(count, folds):
    splits = make_splits(REAL[:count], BASES)
    assert len(splits) == folds and all(split["train"] and split["val"] for split in splits)


def test_folds_of_the_user_are_kept_without_bases():
    existing = [{"train": ["real_00", "base_00"], "val": ["real_01"]}]
    split = make_splits(REAL, BASES, existing=existing)[0]
    assert (split["train"], split["val"], split["synthesis_bases"]) == (["real_00"], ["real_01"], BASES)


def test_unknown_cases_in_the_users_folds_are_named():
    with pytest.raises(InputError, match=r"fold 0 names cases.*\['lost'\]"):
        make_splits(REAL, BASES, existing=[{"train": ["lost"], "val": []}])


def test_dataset_without_any_organ_is_refused():
    with pytest.raises(InputError, match="no case has an organ"):
        make_splits([], [])
