"""Finds organ and tumor label pairs in nnU-Net's dataset.json, from the names and the nesting of labels."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.label_names import is_tumor_name
from nnunet_difftumor.names import check_plain_name
from nnunet_difftumor.synthesis.organ import Organ

_OTHER_LESION = re.compile(r"cyst|mass|abnormal")
_HINT = "name the pairs yourself, for example `organ` liver=1:2 or `organ` kidney=1:2:3 (organ=labels:tumor:avoid)"


def find_organs(dataset_json: Mapping[str, Any]) -> tuple[Organ, ...]:
    """Pairs every tumor label with its organ.

    Plain labels: `liver_tumor` belongs to `liver`; if there is one organ and one tumor, they belong together. Regions
    (a name with several values, as in KiTS): the tumor belongs to the narrowest other region around it; healthy tissue
    is what of that region is in no lesion.

    Args:
        dataset_json: content of nnU-Net's dataset.json.

    Raises:
        InputError: if there is no tumor label, or its organ is not clear.
    """
    labels = {
        name: tuple(value) if isinstance(value, list | tuple) else (value,)
        for name, value in dataset_json["labels"].items()
        if name not in ("background", "ignore")
    }
    lesion_names = {name for name in labels if is_tumor_name(name) or _OTHER_LESION.search(name.lower())}
    lesion_values = {value for name in lesion_names for value in labels[name]}
    organ_names = [name for name in labels if name not in lesion_names]
    tumors = [name for name in labels if is_tumor_name(name)]
    if not tumors:
        raise InputError(
            f"dataset.json: no label is named like a tumor (labels: {', '.join(labels)}). Declare one (it may be empty "
            f"in every case), or {_HINT}"
        )
    organs = []
    for tumor in tumors:
        owner = _owner(tumor, tumors, organ_names, labels)
        healthy = tuple(sorted(set(labels[owner]) - lesion_values))
        if not healthy or len(labels[tumor]) != 1:
            raise InputError(f"dataset.json: {tumor} {labels[tumor]} in {owner} {labels[owner]} is ambiguous; {_HINT}")
        organs.append(Organ(_identifier(owner), healthy, labels[tumor][0], tuple(sorted(lesion_values))))
    if len({organ.name for organ in organs}) < len(organs):
        raise InputError(f"dataset.json: several tumor labels belong to one organ ({', '.join(tumors)}); {_HINT}")
    return tuple(organs)


def parse_organ(text: str) -> Organ:
    """Reads `NAME=ORGAN[,ORGAN]:TUMOR[:AVOID[,AVOID]]`; the tumor's own label is always avoided.

    Raises:
        InputError: if the text does not have that form.
    """
    match = re.fullmatch(r"([^=]+)=(\d+(?:,\d+)*):(\d+)(?::(\d+(?:,\d+)*))?", text)
    if not match:
        raise InputError(f"`organ` {text!r}: expected NAME=ORGAN:TUMOR or NAME=ORGAN,ORGAN:TUMOR:AVOID; {_HINT}")
    name, organ, tumor, avoid = match.groups()
    check_plain_name(name, where=f"`organ` {text!r}: the name")
    avoided = {int(tumor), *(int(value) for value in (avoid or "").split(",") if value)}
    return Organ(name, tuple(int(value) for value in organ.split(",")), int(tumor), tuple(sorted(avoided)))


def check_declared(organs: Sequence[Organ], dataset_json: Mapping[str, Any]) -> None:
    """Every label value of the pairs must be declared in dataset.json.

    Raises:
        InputError: naming the value.
    """
    declared = set()
    for value in dataset_json["labels"].values():
        declared |= set(value) if isinstance(value, list | tuple) else {value}
    for organ in organs:
        for value in (*organ.organ_labels, organ.tumor_label, *organ.avoid_labels):
            if value not in declared:
                raise InputError(
                    f"organ {organ.name}: label {value} is not declared in dataset.json (declared: {sorted(declared)})"
                )


def _owner(
    tumor: str,
    tumors: Sequence[str],
    organ_names: Sequence[str],
    labels: Mapping[str, tuple[int, ...]],
) -> str:
    around = [name for name in organ_names if set(labels[tumor]) < set(labels[name])]
    if around:
        return min(around, key=lambda name: len(labels[name]))
    by_name = [name for name in organ_names if _identifier(name) in _identifier(tumor)]
    if len(by_name) == 1:
        return by_name[0]
    if len(by_name) > 1:
        return max(by_name, key=len)
    if len(organ_names) == 1 and len(tumors) == 1:
        return organ_names[0]
    raise InputError(
        f"dataset.json: it is not clear to which organ {tumor!r} belongs (organs: {', '.join(organ_names) or 'none'}); "
        f"{_HINT}"
    )


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower())
