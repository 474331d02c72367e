"""Reads nnU-Net's dataset.json, written by hand more often than not: a mistake is named with file and key."""

import json
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, shortened, shown
from nnunet_difftumor.json_checks import is_integer, read_json

_VERSION_1 = (
    'is that of nnU-Net version 1; version 2 wants "channel_names": {"0": "CT"} instead of modality, and labels by '
    'name, such as {"background": 0, "liver": 1, "liver_tumor": 2}'
)


def read_dataset_json(path: Path) -> dict[str, Any]:
    """The content, with labels, channel_names and file_ending as nnU-Net 2 wants them.

    Raises:
        InputError: naming the file and the key, for whatever is missing or wrong.
    """
    missing = "`difftumor convert` makes a raw dataset with it"
    content = read_json(path, dict, expected="an object", missing=missing, fix="correct it there")
    labels = content.get("labels")
    old_labels = isinstance(labels, dict) and labels and all(isinstance(value, str) for value in labels.values())
    if "modality" in content and "channel_names" not in content:
        raise InputError(f"{path}: modality {_VERSION_1}")
    if old_labels and all(key.isdigit() for key in labels):
        raise InputError(f"{path}: labels {_VERSION_1}")
    channels = content.get("channel_names")
    if not isinstance(channels, dict) or not channels:
        raise InputError(f'{path}: channel_names is {_seen(channels)}, expected an object such as {{"0": "CT"}}')
    _check_labels(labels, content, path)
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise InputError(
            f'{path}: file_ending is {_seen(ending)}, expected how the names of the images end, such as ".nii.gz"'
        )
    _check_listed_cases(content, path)
    return content


def _check_labels(labels: Any, content: dict[str, Any], path: Path) -> None:
    example = '{"background": 0, "liver": 1, "liver_tumor": 2}'
    if not isinstance(labels, dict) or not labels:
        raise InputError(f"{path}: labels is {_seen(labels)}, expected an object such as {example}")
    for name, value in labels.items():
        values = value if isinstance(value, list) and value else [value]
        if not all(is_integer(entry) and entry >= 0 for entry in values):
            raise InputError(
                f"{path}: labels: {shortened(name)} is {_seen(value)}, expected a whole number without quotes, or a "
                f"list of them for a region, as in {example}"
            )
    if labels.get("background") != 0:
        raise InputError(f"{path}: labels: background is {_seen(labels.get('background'))}, expected 0")
    values = {entry for value in labels.values() for entry in (value if isinstance(value, list) else [value])}
    if values != set(range(len(values))):
        options = " ".join(
            f"{name}={','.join(map(str, value if isinstance(value, list) else [value]))}"
            for name, value in labels.items()
            if name != "background"
        )
        raise InputError(
            f"{path}: labels: the values are {shown(sorted(values))}, expected 0, 1, 2, ... without a gap, as nnU-Net "
            f"asks; `difftumor convert folder --labels {shortened(options)}` renumbers them"
        )
    has_regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    if has_regions and not isinstance(content.get("regions_class_order"), list):
        raise InputError(
            f"{path}: regions_class_order is missing; nnU-Net wants it where a label has several values: the values "
            "to write, in the order of the regions"
        )


def _check_listed_cases(content: dict[str, Any], path: Path) -> None:
    """Cases that dataset.json lists itself, as nnU-Net allows."""
    listed = content.get("dataset")
    if listed is None:
        content.pop("dataset", None)
        return
    expected = 'expected {"CASE": {"images": ["..."], "label": "..."}}'
    if not isinstance(listed, dict):
        raise InputError(f"{path}: dataset is no object, {expected}")
    for name, entry in listed.items():
        good = isinstance(entry, dict) and isinstance(entry.get("label"), str) and isinstance(entry.get("images"), list)
        if not good or not all(isinstance(image, str) for image in entry["images"]):
            raise InputError(f"{path}: dataset: {shortened(name)} is {_seen(entry)}, {expected}")


def _seen(value: Any) -> str:
    return shortened(json.dumps(value))
