"""Who the cases are of: patients and groups (sex, age band, scanner, site) from a table that the user gives."""

import csv
import os
from collections.abc import Collection
from dataclasses import dataclass, field

from nnunet_difftumor.errors import InputError, shown, some

CASE, PATIENT = "case", "patient"
NOT_STATED = "(not stated)"


@dataclass(frozen=True)
class CaseTable:
    """What is known of the cases.

    Attributes:
        patients: by case, for those whose patient is stated; every other case is a patient of its own.
        groups: by column and then by case, the value; empty cells are `NOT_STATED`.
    """

    patients: dict[str, str] = field(default_factory=dict)
    groups: dict[str, dict[str, str]] = field(default_factory=dict)

    def patient_of(self, case: str) -> str:
        # Not a name that another case's patient may have.
        return f"patient {self.patients[case]}" if case in self.patients else f"case {case}"


def read_case_table(path: str | os.PathLike, cases: Collection[str]) -> CaseTable:
    """Reads a CSV file with a column `case`, perhaps `patient`, and any others, which are groups.

    Args:
        path: the file, in UTF-8, with a head; commas or semicolons.
        cases: the names that are evaluated.

    Raises:
        InputError: if it is no such table, has a case twice, or names cases that are not evaluated.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            text = file.read()
        head = text.partition("\n")[0]
        rows = list(csv.DictReader(text.splitlines(), delimiter=";" if head.count(";") > head.count(",") else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    columns = list(rows[0]) if rows else []
    if CASE not in columns:
        raise InputError(f"{path}: expected a first line with a column {CASE!r}, got {shown(head)}")
    if None in columns or any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: its rows have not as many cells as the first line has")
    table = CaseTable(groups={name: {} for name in columns if name not in (CASE, PATIENT)})
    seen: set[str] = set()
    for row in rows:
        case = row[CASE].strip()
        if case in seen:
            raise InputError(f"{path}: has case {shown(case)} twice")
        seen.add(case)
        if row.get(PATIENT, "").strip():
            table.patients[case] = row[PATIENT].strip()
        for name, of_case in table.groups.items():
            of_case[case] = row[name].strip() or NOT_STATED
    if unknown := sorted(seen - set(cases)):
        raise InputError(
            f"{path}: no case {some(unknown)} is evaluated; the names are those of the label maps, without suffix"
        )
    return table
