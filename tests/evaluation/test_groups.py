"""Patients and groups from a table: figures of each group, and tables that are something else."""

import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.groups import NOT_STATED, read_case_table


def test_columns_are_groups_and_a_case_without_a_patient_is_its_own(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("\ufeffcase;patient;sex;scanner\na;p1;f;\nb;p1;m;A\nc;;f;B\n", encoding="utf-8")
    table = read_case_table(path, ["a", "b", "c", "d"])
    assert table.groups == {
        "sex": {"a": "f", "b": "m", "c": "f"},
        "scanner": {"a": NOT_STATED, "b": "A", "c": "B"},
    }
    patients = [table.patient_of(case) for case in "abcd"]
    assert patients[0] == patients[1] and len(set(patients)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a first line with a column 'case'"),
        ("name,sex\na,f\n", "expected a first line with a column 'case'"),
        ("case,sex\na,f\na,m\n", "has case 'a' twice"),
        ("case,sex\na,f\nz9,m\n", "no case z9 is evaluated"),
        ("case,sex\na,f,m\n", "not as many cells"),
        ("case,sex\na\n", "not as many cells"),
    ],
)
def test_tables_that_do_not_fit_the_cases_are_refused(tmp_path, text, said):
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_case_table(path, ["a", "b"])
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_case_table(tmp_path / "nowhere.csv", ["a"])
    path.write_bytes(b"case,sex\na,\xff\xfe\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_case_table(path, ["a"])
