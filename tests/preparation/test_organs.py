"""Organ and tumor pairs from the names and nesting of labels in dataset.json."""

import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.organs import check_declared, find_organs, parse_organ
from nnunet_difftumor.synthesis.organ import Organ


def pairs(labels):
    return find_organs({"labels": {"background": 0, **labels}})


def test_msd_liver():
    assert pairs({"liver": 1, "cancer": 2}) == (Organ("liver", (1,), 2, (2,)),)


def test_several_organs_are_paired_by_name():
    found = pairs({"liver": 1, "liver_tumor": 2, "kidney": 3, "kidney_tumour": 4, "spleen": 5})
    assert found == (Organ("liver", (1,), 2, (2, 4)), Organ("kidney", (3,), 4, (2, 4)))


def test_kits_regions():
    found = pairs({"kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2})
    assert found == (Organ("kidney", (1,), 2, (2, 3)),)


def test_cysts_are_avoided_and_no_tumors():
    assert pairs({"kidney": 1, "tumor": 2, "cyst": 3}) == (Organ("kidney", (1,), 2, (2, 3)),)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"liver": 1, "spleen": 2}, "no label is named like a tumor"),
        ({"liver": 1, "spleen": 2, "tumor": 3}, "not clear to which organ 'tumor' belongs"),
        ({"liver": 1, "tumor": 2, "metastasis": 3}, "not clear"),
    ],
)
def test_unclear_labels_ask_for_the_option(labels, message):
    with pytest.raises(InputError, match=message) as error:
        pairs(labels)
    assert "`organ` liver=1:2" in str(error.value)


def test_organ_option():
    assert parse_organ("kidney=1,4:2:3") == Organ("kidney", (1, 4), 2, (2, 3))
    assert parse_organ("liver=1:2") == Organ("liver", (1,), 2, (2,))
    with pytest.raises(InputError, match="expected NAME=ORGAN:TUMOR"):
        parse_organ("liver:1:2")


def test_undeclared_values_are_named():
    with pytest.raises(InputError, match="label 9 is not declared"):
        check_declared([Organ("liver", (1,), 9)], {"labels": {"background": 0, "liver": 1}})
