"""Which organ a predicted tumor has to lie in."""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct import read_labels
from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.evaluation.labels import all_labels, find_dataset_json, tumor_labels
from nnunet_difftumor.preparation.organs import find_organs

_FORM = re.compile(r"(\w+)=(\d+(?:,\d+)*):(\d+(?:,\d+)*)")


@dataclass(frozen=True)
class Owner:
    """An organ and its tumors.

    Attributes:
        name: of the organ.
        organ_values: of the organ, in its masks; empty: all but 0.
        tumor_values: of the tumors, in the predictions; together they are one mask, whose components are judged.
    """

    name: str
    organ_values: tuple[int, ...]
    tumor_values: tuple[int, ...]

    def organ(self, labels: np.ndarray) -> np.ndarray:
        """Boolean mask of the organ."""
        return np.isin(labels, self.organ_values) if self.organ_values else labels > 0

    def tumor(self, labels: np.ndarray) -> np.ndarray:
        """Boolean mask of the tumors."""
        return np.isin(labels, self.tumor_values)


def choose_owners(
    prediction: str | os.PathLike,
    *,
    has_masks: bool,
    organ: Sequence[str],
    organ_label: Sequence[int],
    tumor_label: Sequence[int],
    dataset_json: str | os.PathLike | None,
    report: Callable[[str], None],
) -> tuple[Owner, ...]:
    """Organs and tumors as they were given, else as nnU-Net's dataset.json names them.

    Raises:
        InputError: what was given contradicts itself or dataset.json, or does not say which organ a tumor belongs to.
    """
    page = Path(dataset_json) if dataset_json is not None else find_dataset_json(prediction)
    if organ:
        if organ_label or tumor_label:
            raise InputError("give either `organ` NAME=ORGAN:TUMOR, or `organ_label` and `tumor_label`")
        owners = tuple(_parse(text) for text in organ)
    elif tumor_label and (organ_label or has_masks):
        owners = (Owner("organ", tuple(organ_label), tuple(tumor_label)),)
    elif not has_masks:
        if organ_label or tumor_label:
            raise InputError("without `organ_masks`, `organ_label` and `tumor_label` belong together; give both")
        report(f"organs and tumors of {page}")
        found = find_organs({"labels": all_labels(page)})
        owners = tuple(Owner(each.name, each.organ_labels, (each.tumor_label,)) for each in found)
    else:
        report(f"tumors of {page}")
        tumors = tumor_labels(page)
        if len(tumors) > 1:
            raise InputError(
                f"{page}: names the tumors {', '.join(tumors)}, and each has its own organ; say which values it has in "
                "the masks: `organ` NAME=ORGAN:TUMOR for each, for example `organ` liver=5:2"
            )
        ((_, values),) = tumors.items()
        owners = (Owner("organ", tuple(organ_label), values),)
    _check_values(owners, in_one_file=not has_masks)
    if page.is_file():
        _check_declared(owners, page, organs_too=not has_masks)
    return owners


def check_occurrence(owners: Sequence[Owner], organ_files: Collection[Path], tumor_files: Collection[Path]) -> None:
    """Refuses values that are in no file: they are mistakes, and would remove every tumor or none.

    Args:
        owners: organs and tumors.
        organ_files: in which the values of organs must occur.
        tumor_files: in which those of tumors must; empty: dataset.json declares them.

    Raises:
        InputError: naming the value and what there is.
    """
    organs = {value: owner.name for owner in owners for value in owner.organ_values}
    tumors = {value: f"tumors of {owner.name}" for owner in owners for value in owner.tumor_values}
    _occur(organs, organ_files, "`organ` or `organ_label`")
    if tumor_files:
        _occur(tumors, tumor_files, "`organ` or `tumor_label`")


def _occur(wanted: Mapping[int, str], files: Collection[Path], options: str) -> None:
    missing, seen = dict(wanted), set()
    for path in files:
        if not missing:
            return
        values = {int(value) for value in np.unique(read_labels(path))}
        seen |= values
        for value in values:
            missing.pop(value, None)
    for value, name in missing.items():
        raise InputError(
            f"{next(iter(files)).parent}: no label map has the value {value} ({name}); they hold "
            f"{', '.join(map(str, sorted(seen)))}: correct {options}"
        )


def _parse(text: str) -> Owner:
    match = _FORM.fullmatch(text)
    if not match:
        raise InputError(f"`organ` {shown(text)}: expected NAME=ORGAN[,ORGAN]:TUMOR[,TUMOR], for example liver=1:2")
    name, organ, tumor = match.groups()
    return Owner(name, tuple(map(int, organ.split(","))), tuple(map(int, tumor.split(","))))


def _check_values(owners: Sequence[Owner], *, in_one_file: bool) -> None:
    names = [owner.name for owner in owners]
    if len(set(names)) < len(names):
        raise InputError(f"`organ`: {', '.join(names)} names an organ twice; give all its values at once, liver=1,3:2")
    given: dict[int, str] = {}
    for owner in owners:
        if 0 in (*owner.organ_values, *owner.tumor_values):
            raise InputError(f"{owner.name}: 0 is the background, no organ and no tumor; give another value")
        if in_one_file and (both := set(owner.organ_values) & set(owner.tumor_values)):
            raise InputError(
                f"{owner.name}: {', '.join(map(str, both))} is both organ and tumor, so that every tumor would lie in "
                "its organ; leave it out of the organ, whose holes are filled"
            )
        for value in owner.tumor_values:
            if value in given:
                raise InputError(
                    f"tumors of value {value} are those of {given[value]} and of {owner.name}; give the organs as one, "
                    f"for example both=1,3:{value}"
                )
            given[value] = owner.name


def _check_declared(owners: Sequence[Owner], page: Path, *, organs_too: bool) -> None:
    declared = {value for values in all_labels(page).values() for value in values}
    for owner in owners:
        for value in (*owner.tumor_values, *(owner.organ_values if organs_too else ())):
            if value not in declared:
                raise InputError(
                    f"{page}: does not declare the label {value} of {owner.name} (declared: "
                    f"{', '.join(map(str, sorted(declared)))}); correct `organ`, `organ_label` or `tumor_label`"
                )
