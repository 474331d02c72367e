"""Who trains, who validates, who gets tumors."""

import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.roles import label_free_roles, roles_with_real_cases

SPLITS = [
    {"train": ["a", "b"], "val": ["c"], "synthesis_bases": ["h", "i"], "label_free_val": ["h"]},
    {"train": ["b", "c"], "val": ["a"], "synthesis_bases": ["h", "i"], "label_free_val": ["i"]},
]


def test_real_cases_keep_the_folds_and_bases_never_validate():
    roles = roles_with_real_cases(SPLITS, 0, real_as_bases=False)
    assert (roles.train, roles.validation, roles.bases) == (("a", "b"), ("c",), ("h", "i"))


def test_validation_cases_never_become_bases():
    assert roles_with_real_cases(SPLITS, 0, real_as_bases=True).bases == ("a", "b", "h", "i")


def test_fold_all_trains_on_every_real_case():
    roles = roles_with_real_cases(SPLITS, "all", real_as_bases=False)
    assert roles.train == roles.validation == ("a", "b", "c")


def test_label_free_holds_out_bases():
    roles = label_free_roles(SPLITS, 1)
    assert (roles.train, roles.validation, roles.bases) == ((), ("i",), ("h",))


def test_single_base_trains_and_validates():
    split = {"train": [], "val": [], "synthesis_bases": ["h"], "label_free_val": ["h"]}
    roles = label_free_roles([split], 0)
    assert roles.validation == roles.bases == ("h",)


@pytest.mark.parametrize("function", [label_free_roles, lambda s, f: roles_with_real_cases(s, f, real_as_bases=False)])
def test_folds_of_plain_nnunet_are_refused(function):
    with pytest.raises(InputError, match=r"synthesis_bases.*difftumor prepare"):
        function([{"train": ["a"], "val": ["b"]}], 0)


def test_no_real_case_points_to_the_label_free_trainer():
    split = {"train": [], "val": [], "synthesis_bases": ["h"], "label_free_val": ["h"]}
    with pytest.raises(InputError, match="nnUNetTrainerDiffTumorLabelFree"):
        roles_with_real_cases([split], 0, real_as_bases=False)
